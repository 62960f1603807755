"""Divergences between two arrays of probabilities, by name: `kl_divergence(p, q)`, ...

p and q are [..., K] with the outcomes on the last axis, and the result is [...] in at least f32, in
nats where there are logarithms. The sums are not checked, so p and q may be any masses >= 0.
Outcomes are handled as in `f_divergence`: p = q = 0 costs nothing, 0 log 0 = 0, KL(P || Q) is inf
where q = 0 < p; a probability of exactly 0 and an infinite term have gradient 0. NaN propagates.

Everything is computed from the differences p - q, so that nearly equal laws keep their digits: a
`kl_divergence` of 1e-8 is as accurate in f32 as one of 1. The records `kl()`, `jensen_shannon()`,
... describe the same divergences for critics; `f_divergence(kl(), p, q)` rounds p / q first.
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.divergences.f_divergence import law_pair, sum_over_outcomes

_NEAR = 0.125  # of |p - q| / (p + q)


def kl_divergence(p, q):
    """KL(P || Q) = sum p log(p / q) - p + q, in nats.

    The last two terms add up to 0 for probabilities and make every term >= 0: the sum is
    `scipy.special.kl_div`'s. `torch.nn.functional.kl_div` takes log q first and p second.

    Args:
      p: [..., K], probabilities.
      q: [..., K], likewise.

    Returns:
      [...], >= 0; inf where q = 0 < p.

    Raises:
      ValueError: p and q differ in shape, or are scalars.
    """
    return _total(_relative_entropy, p, q, at_zero=1.0, slope_at_infinity=math.inf)


def reverse_kl_divergence(p, q):
    """KL(Q || P), with `kl_divergence`'s arguments, result and errors; inf where p = 0 < q."""
    return kl_divergence(q, p)


def jeffreys_divergence(p, q):
    """KL(P || Q) + KL(Q || P) = sum (p - q) log(p / q), in nats.

    Arguments and errors as in `kl_divergence`; inf where exactly one of p and q is 0.
    """
    return _total(
        lambda p, q: (p - q) * _log_ratio(p, q),
        p,
        q,
        at_zero=math.inf,
        slope_at_infinity=math.inf,
    )


def jensen_shannon_divergence(p, q):
    """JSD = (KL(P || M) + KL(Q || M)) / 2, M = (P + Q) / 2, in [0, log 2] (Lin 1991).

    It is half of the record `jensen_shannon()`, which has the scale of the f-GAN paper, and the
    square of `scipy.spatial.distance.jensenshannon`. Arguments and errors as in `kl_divergence`.
    """
    half = math.log(2) / 2
    return _total(_jensen_shannon, p, q, at_zero=half, slope_at_infinity=half)


def total_variation_distance(p, q):
    """TV = 1/2 sum |p - q|, in [0, 1]; the gradient is 0 where p = q.

    Arguments and errors as in `kl_divergence`.
    """

    def term(p, q):
        return (p - q) * jnp.sign(p - q) / 2

    return _total(term, p, q, at_zero=0.5, slope_at_infinity=0.5)


def squared_hellinger_distance(p, q):
    """sum (sqrt p - sqrt q)^2 = 2 - 2 sum sqrt(p q), in [0, 2], on the scale of the record.

    Arguments and errors as in `kl_divergence`. Some authors halve it: see `hellinger_distance`.
    """
    return _total(lambda p, q: _root_gap(p, q) ** 2, p, q, at_zero=1.0, slope_at_infinity=1.0)


def hellinger_distance(p, q):
    """H = (1/2 sum (sqrt p - sqrt q)^2)^1/2, a metric in [0, 1]; the gradient is 0 at P = Q.

    Arguments and errors as in `kl_divergence`.
    """
    square = squared_hellinger_distance(p, q) / 2
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def pearson_chi_square(p, q):
    """chi^2(P || Q) = sum (p - q)^2 / q, Pearson's statistic of p observed and q expected.

    Arguments and errors as in `kl_divergence`; inf where q = 0 < p. The record of this divergence
    is `chi_square_over_q()`.
    """
    return _total(_chi_square, p, q, at_zero=1.0, slope_at_infinity=math.inf)


def neyman_chi_square(p, q):
    """chi^2(Q || P) = sum (p - q)^2 / p, with `pearson_chi_square`'s arguments swapped.

    The record of this divergence is `chi_square_over_p()`.
    """
    return pearson_chi_square(q, p)


def _total(term, p, q, at_zero, slope_at_infinity):
    p, q = law_pair(p, q)
    alone = ((p == 0) | (q == 0)) & ~jnp.isnan(p + q)
    both = term(jnp.where(alone, 1, p), jnp.where(alone, 1, q))
    return sum_over_outcomes(both, alone, p, q, at_zero, slope_at_infinity)


def _elementwise(of_p, of_q):
    """Decorates value(p, q) with its partial derivatives; autodiff of quotients would square q."""

    def decorate(value):
        function = jax.custom_jvp(value)

        @function.defjvp
        def _(primals, tangents):
            (p, q), (dp, dq) = primals, tangents
            return function(p, q), of_p(p, q) * dp + of_q(p, q) * dq

        return function

    return decorate


def _near(p, q):
    """Whether p and q are close, and (p - q) / (p + q) there, 0 elsewhere."""
    near = jnp.abs(p - q) < _NEAR * (p + q)
    return near, jnp.where(near, p - q, 0) / jnp.where(near, p + q, 1)


@_elementwise(of_p=lambda p, q: 1 / p, of_q=lambda p, q: -1 / q)
def _log_ratio(p, q):
    """log(p / q) = 2 atanh((p - q) / (p + q))."""
    near, z = _near(p, q)
    return jnp.where(near, 2 * jnp.arctanh(z), jnp.log(p) - jnp.log(q))


@_elementwise(of_p=_log_ratio, of_q=lambda p, q: (q - p) / q)
def _relative_entropy(p, q):
    """p log(p / q) - p + q = (p + q) (z atanh z + (atanh z - z)),  z = (p - q) / (p + q)."""
    near, z = _near(p, q)
    square, series = z * z, 0.0
    for k in range(19, 1, -2):  # atanh z - z = z^3 / 3 + z^5 / 5 + ...
        series = square * (1 / k + series)
    close = (p + q) * z * (z * (1 + series) + series)
    return jnp.where(near, close, p * (jnp.log(p) - jnp.log(q)) - (p - q))


@_elementwise(of_p=lambda p, q: q / p / (p + q), of_q=lambda p, q: -1 / (p + q))
def _log_share(p, q):
    """log(2 p / (p + q)) = log(1 + (p - q) / (p + q))."""
    near, z = _near(p, q)
    return jnp.where(near, jnp.log1p(z), jnp.log(p) - jnp.log(p / 2 + q / 2))


@_elementwise(
    of_p=lambda p, q: _log_share(p, q) / 2,
    of_q=lambda p, q: _log_share(q, p) / 2,
)
def _jensen_shannon(p, q):
    """(p log(2 p / (p + q)) + q log(2 q / (p + q))) / 2."""
    near, z = _near(p, q)
    close = (p + q) * (z * jnp.arctanh(z) + jnp.log1p(-z * z) / 2) / 2
    return jnp.where(near, close, (p * _log_share(p, q) + q * _log_share(q, p)) / 2)


@_elementwise(of_p=lambda p, q: 0.5 / jnp.sqrt(p), of_q=lambda p, q: -0.5 / jnp.sqrt(q))
def _root_gap(p, q):
    """sqrt p - sqrt q."""
    return (p - q) / (jnp.sqrt(p) + jnp.sqrt(q))


@_elementwise(
    of_p=lambda p, q: 2 * (p - q) / q,
    of_q=lambda p, q: (q - p) / q * (1 + p / q),
)
def _chi_square(p, q):
    """(p - q)^2 / q."""
    return (p - q) / q * (p - q)
