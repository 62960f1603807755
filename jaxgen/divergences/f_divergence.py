"""f-divergences: D_f(P || Q) = E_Q[f(p / q)] for a convex f, and their variational form.

Nowozin, Cseke and Tomioka 2016 (f-GAN, arXiv 1606.00709). With the conjugate
f*(t) = sup_{u >= 0} (u t - f(u)),

    D_f(P || Q) = max_T  E_P[T] - E_Q[f*(T)],   reached at T = f'(p / q),

so a critic with raw scores v and T = g_f(v) gives a lower bound from samples alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32


class FDivergence(NamedTuple):
    """One f-divergence. Functions are elementwise and compute and answer in at least f32.

    Attributes:
      f: generator, u > 0 -> f(u); convex. f(1) is the divergence of a law to itself: 0 in every
        record but `gan`.
      conjugate: t -> f*(t) with the supremum over u >= 0: -f(0) for t below f'(0), and +inf, with
        gradient 0, for t above f'(infinity).
      activation: g_f, any real score v -> T in the domain of f*; increasing, so that a higher
        score always means more real.
      composed_conjugate: v -> f*(g_f(v)) without overflow or cancellation on the way. Use it, not
        conjugate(activation(v)), whose inner value rounds to the end of the domain.
      threshold: f'(1), the T of a point where p = q; T above it says real.
      at_zero: f(0), what mass of Q without any of P costs; may be inf.
      slope_at_infinity: f'(infinity) = lim f(u) / u, what mass of P without any of Q costs, and
        the upper end of the domain of f*; may be inf.
    """

    f: Callable[..., Any]
    conjugate: Callable[..., Any]
    activation: Callable[..., Any]
    composed_conjugate: Callable[..., Any]
    threshold: float
    at_zero: float
    slope_at_infinity: float


class BoundTerms(NamedTuple):
    """D_f(P || Q) >= mean(real) + mean(fake).

    Attributes:
      real: T, one per example of P.
      fake: -f*(T), one per example of Q.
    """

    real: Any
    fake: Any


def variational_bound(divergence: FDivergence, v_real, v_fake) -> BoundTerms:
    """Terms of D_f(P || Q) >= E_P[g_f(v)] - E_Q[f*(g_f(v))] (arXiv 1606.00709, equation 6).

    The critic ascends mean(real) + mean(fake); the generator descends mean(fake), or, by the
    paper's heuristic, descends -mean(g_f(v_fake)) instead.

    Args:
      divergence: which one.
      v_real: raw scores of examples of P, any shape.
      v_fake: raw scores of examples of Q, any shape; as many as there are.

    Returns:
      `BoundTerms` of the shapes of v_real and v_fake, unreduced.
    """
    return BoundTerms(divergence.activation(v_real), -divergence.composed_conjugate(v_fake))


def f_divergence(divergence: FDivergence, p, q):
    """D_f(P || Q) = sum_k q_k f(p_k / q_k) between discrete laws.

    Conventions: a place with p = q = 0 adds 0; q = 0 < p adds p f'(infinity); p = 0 < q adds
    q f(0). Either may be infinite. Gradients are those of the finite part: a probability that is
    exactly 0 gets gradient 0 (its one-sided derivative may be infinite), and so do the terms that
    are infinite. A ratio p / q so far from 1 that f overflows counts as 0 in p or in q. NaN stays
    NaN.

    Args:
      divergence: which one.
      p: [..., K], probabilities; that they sum to 1 is not checked.
      q: [..., K].

    Returns:
      [...], nats (where f has logarithms), at least f32.

    Raises:
      ValueError: p and q differ in shape, or are scalars.
    """
    p, q = at_least_f32(p), at_least_f32(q)
    if p.shape != q.shape or p.ndim == 0:
        raise ValueError(f"q {q.shape}; expected the shape of p {p.shape}, [..., K]")
    alone = (p == 0) | (q == 0)
    u = jnp.where(alone, 1, p) / jnp.where(alone, 1, q)
    alone |= (u >= 0) & ~jnp.isfinite(divergence.f(u))  # not where u is NaN, which is to show
    both = _perspective(divergence.f, jnp.where(alone, 1, p), jnp.where(alone, 1, q))
    only_p = _mass(alone & (p > q), p, divergence.slope_at_infinity)
    only_q = _mass(alone & (p < q), q, divergence.at_zero)
    return jnp.sum(jnp.where(alone, 0, both) + only_p + only_q, axis=-1)


def _perspective(f, p, q):
    """q f(p / q), with derivatives f'(u) and f(u) - u f'(u) for u = p / q.

    Backwards through the quotient they pass by q^2, which is 0 in f32 from q = 1e-19 on.
    """
    f, traced = jax.closure_convert(f, p)  # what f closes over is differentiated, too

    @jax.custom_jvp
    def perspective(p, q, *traced):
        return q * f(p / q, *traced)

    @perspective.defjvp
    def _(primals, tangents):
        (p, q, *traced), (dp, dq, *changes) = primals, tangents
        value, slope = jax.jvp(lambda u: f(u, *traced), (p / q,), (jnp.ones_like(p),))
        tangent = slope * dp + (value - p / q * slope) * dq
        if traced:
            tangent += jax.jvp(lambda *c: q * f(p / q, *c), tuple(traced), tuple(changes))[1]
        return q * value, tangent

    return perspective(p, q, *traced)


def _mass(where, mass, rate):
    """mass * rate where `where`; an infinite rate gives a constant inf, so no gradient is NaN."""
    finite = jnp.isfinite(rate)
    cost = jnp.where(finite, mass * jnp.where(finite, rate, 0), rate)
    return jnp.where(where, cost, 0)
