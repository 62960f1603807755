"""f-divergences: D_f(P || Q) = E_Q[f(p / q)] for a convex f, and their variational form.

Nowozin, Cseke and Tomioka 2016 (f-GAN, arXiv 1606.00709). With the conjugate
f*(t) = sup_{u >= 0} (u t - f(u)),

    D_f(P || Q) = max_T  E_P[T] - E_Q[f*(T)],   reached at T = f'(p / q),

so a critic with raw scores v and T = g_f(v) gives a lower bound that needs only samples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32


class FDivergence(NamedTuple):
    """An f-divergence. All functions are elementwise and return at least f32.

    Attributes:
      f: convex generator, u > 0 -> f(u). f(1) is D(P || P): 0 for every divergence but `gan`.
      conjugate: t -> f*(t). It equals -f(0) for t below f'(0), and +inf, with gradient 0, for t
        above f'(infinity).
      activation: g_f, maps any real score v to T in the domain of f*. It is increasing, so a
        higher score always means more real.
      composed_conjugate: v -> f*(g_f(v)), without overflow or cancellation. Use it in place of
        conjugate(activation(v)), where the activation can round to the boundary of the domain.
      threshold: f'(1), the value of T where p = q; a T above it classifies as real.
      at_zero: f(0), the cost per unit of mass of Q where p = 0; may be inf.
      slope_at_infinity: f'(infinity) = lim f(u) / u, the cost per unit of mass of P where q = 0,
        and the upper end of the domain of f*; may be inf.
    """

    f: Callable[..., Any]
    conjugate: Callable[..., Any]
    activation: Callable[..., Any]
    composed_conjugate: Callable[..., Any]
    threshold: float
    at_zero: float
    slope_at_infinity: float


class BoundTerms(NamedTuple):
    """Terms of the bound D_f(P || Q) >= mean(real) + mean(fake).

    Attributes:
      real: T for each example of P.
      fake: -f*(T) for each example of Q.
    """

    real: Any
    fake: Any


def variational_bound(divergence: FDivergence, v_real, v_fake) -> BoundTerms:
    """Terms of D_f(P || Q) >= E_P[g_f(v)] - E_Q[f*(g_f(v))] (arXiv 1606.00709, equation 6).

    The critic maximizes mean(real) + mean(fake). The generator minimizes mean(fake), or
    -mean(g_f(v_fake)) with the paper's heuristic.

    Args:
      divergence: the f-divergence.
      v_real: raw scores of examples of P, any shape.
      v_fake: raw scores of examples of Q, any shape.

    Returns:
      `BoundTerms` of the shapes of v_real and v_fake, unreduced.
    """
    return BoundTerms(divergence.activation(v_real), -divergence.composed_conjugate(v_fake))


def f_divergence(divergence: FDivergence, p, q):
    """D_f(P || Q) = sum_k q_k f(p_k / q_k) between discrete distributions.

    A term with p = q = 0 is 0; with q = 0 < p it is p f'(infinity); with p = 0 < q it is q f(0).
    The last two may be infinite. A probability of exactly 0 gets gradient 0 (its one-sided
    derivative may be infinite), and an infinite term has gradient 0. If p / q is so far from 1 that
    f overflows, the smaller of p and q is treated as 0. NaN propagates.

    Args:
      divergence: the f-divergence.
      p: [..., K], probabilities; the sum is not checked.
      q: [..., K], likewise.

    Returns:
      [...], nats (where f has logarithms), at least f32.

    Raises:
      ValueError: p and q differ in shape, or are scalars.
    """
    p, q = law_pair(p, q)
    alone = ((p == 0) | (q == 0)) & ~jnp.isnan(p + q)
    u = jnp.where(alone, 1, p) / jnp.where(alone, 1, q)
    alone |= (u >= 0) & ~jnp.isfinite(divergence.f(u))  # a NaN u is excluded, to propagate
    both = _perspective(divergence.f, jnp.where(alone, 1, p), jnp.where(alone, 1, q))
    ends = divergence.at_zero, divergence.slope_at_infinity
    return sum_over_outcomes(both, alone, p, q, *ends)


def law_pair(p, q):
    """p and q in at least f32; ValueError unless both are [..., K] of one shape."""
    p, q = at_least_f32(p), at_least_f32(q)
    if p.shape != q.shape or p.ndim == 0:
        raise ValueError(f"q {q.shape}; expected the shape of p {p.shape}, [..., K]")
    return p, q


def sum_over_outcomes(both, alone, p, q, at_zero, slope_at_infinity):
    """Sum of `both`, and where only one of p and q counts (`alone`) of its mass times its cost."""
    only_p = _mass(alone & (p > q), p, slope_at_infinity)
    only_q = _mass(alone & (p < q), q, at_zero)
    return jnp.sum(jnp.where(alone, 0, both) + only_p + only_q, axis=-1)


def _perspective(f, p, q):
    """q f(p / q), with derivatives f'(u) and f(u) - u f'(u) for u = p / q.

    Differentiating the quotient would compute q^2, which underflows in f32 for q <= 1e-19.
    """
    f, traced = jax.closure_convert(f, p)  # also differentiates what f closes over

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
    """mass * rate where `where` holds, else 0; an infinite rate gives inf without gradient."""
    finite = jnp.isfinite(rate)
    cost = jnp.where(finite, mass * jnp.where(finite, rate, 0), rate)
    return jnp.where(where, cost, 0)
