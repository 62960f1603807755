"""Common f-divergences: `kl()`, `squared_hellinger()`, ...

Generators and activations follow Nowozin et al. 2016 (f-GAN, arXiv 1606.00709, tables 1, 2 and 6),
with signs chosen so that every activation is increasing. Each docstring gives D as an integral,
because names and scales differ between papers.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxgen.arguments import at_least_f32
from jaxgen.divergences.f_divergence import FDivergence

_LOG2 = math.log(2)


def _record(f, conjugate, activation, composed, threshold, at_zero, slope_at_infinity):
    """An FDivergence whose functions compute in at least f32; f* is inf above its domain."""

    def on_domain(t):
        if math.isinf(slope_at_infinity):
            return conjugate(t)
        above = t > slope_at_infinity
        return jnp.where(above, jnp.inf, conjugate(jnp.where(above, threshold, t)))

    f, on_domain, activation, composed = (
        lambda x, g=g: g(at_least_f32(x)) for g in (f, on_domain, activation, composed)
    )
    return FDivergence(f, on_domain, activation, composed, threshold, at_zero, slope_at_infinity)


def kl() -> FDivergence:
    """Kullback-Leibler: D = int p log(p / q),  f(u) = u log u."""
    return _record(
        f=lambda u: xlogy(u, u),
        conjugate=lambda t: jnp.exp(t - 1),
        activation=lambda v: v,
        composed=lambda v: jnp.exp(v - 1),
        threshold=1.0,
        at_zero=0.0,
        slope_at_infinity=math.inf,
    )


def reverse_kl() -> FDivergence:
    """Reverse Kullback-Leibler: D = int q log(q / p),  f(u) = -log u."""
    return _record(
        f=lambda u: -jnp.log(u),
        conjugate=lambda t: -1 - jnp.log(-t),
        activation=lambda v: -jnp.exp(-v),
        composed=lambda v: v - 1,
        threshold=-1.0,
        at_zero=math.inf,
        slope_at_infinity=0.0,
    )


def chi_square_over_q() -> FDivergence:
    """D = int (p - q)^2 / q,  f(u) = (u - 1)^2.

    The f-GAN paper calls it Pearson's; others (kexue.fm post 6016) call it Neyman's. For
    t < -2 the supremum is at u = 0 and f* = -1; the paper's t^2 / 4 + t holds only for t >= -2.
    """

    def conjugate(t):
        return jnp.where(t < -2, -1, t * (t / 4 + 1))

    return _record(
        f=lambda u: (u - 1) ** 2,
        conjugate=conjugate,
        activation=lambda v: v,
        composed=conjugate,
        threshold=0.0,
        at_zero=1.0,
        slope_at_infinity=math.inf,
    )


def chi_square_over_p() -> FDivergence:
    """D = int (p - q)^2 / p,  f(u) = (1 - u)^2 / u.

    The f-GAN paper calls it Neyman's; others (kexue.fm post 6016) call it Pearson's.
    """
    return _record(
        f=lambda u: (1 - u) ** 2 / u,
        conjugate=lambda t: 2 - 2 * jnp.sqrt(1 - t),
        activation=lambda v: -jnp.expm1(-v),
        composed=lambda v: -2 * jnp.expm1(-v / 2),
        threshold=0.0,
        at_zero=math.inf,
        slope_at_infinity=1.0,
    )


def squared_hellinger() -> FDivergence:
    """D = int (sqrt p - sqrt q)^2, in [0, 2],  f(u) = (sqrt u - 1)^2; some authors halve it."""
    return _record(
        f=lambda u: (jnp.sqrt(u) - 1) ** 2,
        conjugate=lambda t: t / (1 - t),
        activation=lambda v: -jnp.expm1(-v),
        composed=jnp.expm1,
        threshold=0.0,
        at_zero=1.0,
        slope_at_infinity=1.0,
    )


def jeffreys() -> FDivergence:
    """D = int (p - q) log(p / q) = KL + reverse KL,  f(u) = (u - 1) log u.

    With s = log u the root of f'(u) = s + 1 - exp(-s) = t, f*(t) = exp(s) - 1 + s.
    """

    def conjugate(t):
        s = _jeffreys_log_ratio(t)
        return jnp.expm1(s) + s

    return _record(
        f=lambda u: (u - 1) * jnp.log(u),
        conjugate=conjugate,
        activation=lambda v: v,
        composed=conjugate,
        threshold=0.0,
        at_zero=math.inf,
        slope_at_infinity=math.inf,
    )


@jax.custom_jvp
def _jeffreys_log_ratio(t):
    """The root s of s + 1 - exp(-s) = t; x = -s solves exp(x) + x = 1 - t by Newton's method."""
    c = 1 - t
    # The function is convex and both starts lie above its root, so the iteration descends to it.
    x = jnp.where(c > 1, jnp.log(jnp.maximum(c, 1)), c)
    for _ in range(6):
        w = jnp.exp(x)
        x = x - (w + x - c) / (w + 1)
    return -x


@_jeffreys_log_ratio.defjvp
def _(primals, tangents):
    s = _jeffreys_log_ratio(*primals)
    return s, tangents[0] / (1 + jnp.exp(-s))


def jensen_shannon() -> FDivergence:
    """D = int p log(2p / (p+q)) + q log(2q / (p+q)) = 2 JSD, in [0, 2 log 2].

    f(u) = u log u - (u + 1) log((u + 1) / 2): the f-GAN paper's scale, twice the divergence of Lin
    1991 and of kexue.fm post 6016.
    """
    return _record(
        f=lambda u: xlogy(u, u) - (u + 1) * jnp.log((u + 1) / 2),
        conjugate=lambda t: -jnp.log1p(-jnp.expm1(t)),
        activation=lambda v: _LOG2 - jax.nn.softplus(-v),
        composed=lambda v: jax.nn.softplus(v) - _LOG2,
        threshold=0.0,
        at_zero=_LOG2,
        slope_at_infinity=_LOG2,
    )


def weighted_jensen_shannon(pi: float) -> FDivergence:
    """D = pi KL(P || M) + (1 - pi) KL(Q || M),  M = pi P + (1 - pi) Q.

    f(u) = pi u log u - (1 - pi + pi u) log(1 - pi + pi u). At pi = 1/2 it is the JSD of Lin 1991,
    half of `jensen_shannon`. As pi -> 0, D / pi tends to KL(P || Q); as pi -> 1,
    D / (1 - pi) tends to KL(Q || P).

    Args:
      pi: weight of P, a Python number in (0, 1).

    Raises:
      ValueError: pi is outside (0, 1).
    """
    if not 0 < pi < 1:
        raise ValueError(f"pi {pi}; expected a number in (0, 1)")
    rest = 1 - pi
    entropy = -pi * math.log(pi)

    def composed(v):
        # log(1 - exp(-softplus(-v) / pi)); above 40, softplus(-v) rounds to exp(-v) in f64.
        far = v > 40
        inner = jax.nn.log1mexp(jax.nn.softplus(-jnp.where(far, 0, v)) / pi)
        return rest * (math.log(rest) - jnp.where(far, -v - math.log(pi), inner))

    return _record(
        f=lambda u: pi * xlogy(u, u) - (rest + pi * u) * jnp.log(rest + pi * u),
        conjugate=lambda t: rest * (math.log(rest) - jnp.log1p(-pi * jnp.exp(t / pi))),
        activation=lambda v: entropy - jax.nn.softplus(-v),
        composed=composed,
        threshold=0.0,
        at_zero=-rest * math.log(rest),
        slope_at_infinity=entropy,
    )


def gan() -> FDivergence:
    """The GAN objective: D = 2 JSD - 2 log 2,  f(u) = u log u - (u + 1) log(u + 1).

    T = log sigmoid(v) and f*(T) = -log(1 - sigmoid(v)), where v is the logit of "real" (Goodfellow
    et al. 2014, arXiv 1406.2661). D(P || P) = f(1) = -2 log 2, not 0.
    """
    return _record(
        f=lambda u: xlogy(u, u) - (u + 1) * jnp.log1p(u),
        conjugate=lambda t: -jax.nn.log1mexp(-t),
        activation=lambda v: -jax.nn.softplus(-v),
        composed=jax.nn.softplus,
        threshold=-_LOG2,
        at_zero=0.0,
        slope_at_infinity=0.0,
    )


def alpha_divergence(alpha: float) -> FDivergence:
    """D = (int p^alpha q^(1 - alpha) - 1) / (alpha (alpha - 1)).

    f(u) = (u^alpha - 1 - alpha (u - 1)) / (alpha (alpha - 1)). Special cases:
    alpha -> 1 is `kl`, alpha -> 0 is `reverse_kl`, 1/2 is 2 `squared_hellinger`, 2 is half of
    `chi_square_over_q`, and -1 is half of `chi_square_over_p`. For alpha > 1, f*(t) is clamped to
    -1 / alpha below t = -1 / (alpha - 1), where the usual power is wrong or NaN.

    Args:
      alpha: a Python number, neither 0 nor 1.

    Raises:
      ValueError: alpha is 0, 1, infinite or NaN.
    """
    if alpha in (0, 1) or not math.isfinite(alpha):
        raise ValueError(f"alpha {alpha}; expected a number other than 0 and 1")
    power = alpha / (alpha - 1)

    def f(u):  # expm1 near alpha = 0 and 1, where the powers cancel
        if abs(alpha) < 0.03:
            return (jnp.expm1(alpha * jnp.log(u)) / alpha - (u - 1)) / (alpha - 1)
        if abs(alpha - 1) < 0.03:
            return (u * jnp.expm1((alpha - 1) * jnp.log(u)) / (alpha - 1) - (u - 1)) / alpha
        return (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1))

    def conjugate(t):
        base = 1 + (alpha - 1) * t
        below = base <= 0
        return (jnp.where(below, 0, jnp.where(below, 1, base) ** power) - 1) / alpha

    def composed(v):  # alpha < 1; 1 + (alpha - 1) T = (1 - alpha) softplus(-v)
        return jnp.expm1(power * (math.log(1 - alpha) + _log_softplus(-v))) / alpha

    end = 1 / (1 - alpha)
    return _record(
        f=f,
        conjugate=conjugate,
        activation=(lambda v: end - jax.nn.softplus(-v)) if alpha < 1 else (lambda v: v),
        composed=composed if alpha < 1 else conjugate,
        threshold=0.0,
        at_zero=1 / alpha if alpha > 0 else math.inf,
        slope_at_infinity=end if alpha < 1 else math.inf,
    )


def _log_softplus(x):
    """log(log(1 + exp(x))), which rounds to x in f64 below -40."""
    far = x < -40
    return jnp.where(far, x, jnp.log(jax.nn.softplus(jnp.where(far, 0, x))))


def total_variation() -> FDivergence:
    """D = 1/2 int |p - q|, in [0, 1],  f(u) = |u - 1| / 2.

    f has a kink at 1: its subdifferential is [-1/2, 1/2], and the threshold is the midpoint. The
    optimal critic is T = sign(p - q) / 2, approached as |v| -> infinity.
    """
    return _record(
        f=lambda u: (u - 1) * jnp.sign(u - 1) / 2,  # gradient 0, not 1/2, at the kink
        conjugate=lambda t: jnp.maximum(t, -0.5),
        activation=lambda v: jnp.tanh(v) / 2,
        composed=lambda v: jnp.tanh(v) / 2,
        threshold=0.0,
        at_zero=0.5,
        slope_at_infinity=0.5,
    )
