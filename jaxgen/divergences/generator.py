"""f-divergences built from a generator f by automatic differentiation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32
from jaxgen.divergences.f_divergence import FDivergence

_BISECTIONS = 16  # bring log u to within 0.003 (f32) or 0.02 (f64)
_NEWTON_STEPS = 40  # a few suffice for smooth f; at a kink of f they fall back to bisection


def from_generator(f) -> FDivergence:
    """The `FDivergence` of any convex f: `from_generator(lambda u: (u - 1) ** 2)`.

    The critic's score v parametrizes the density ratio u = v + sqrt(1 + v^2) = exp(arcsinh v), so

        T = f'(u),   f*(T) = u f'(u) - f(u)

    need no root finding. u is increasing in v, covers (0, infinity) and grows only linearly, so
    the difference is accurate to about eps |f(u)|. With u = exp(v) and a finite f'(infinity), it
    would lose all digits in f32 at v = 16. arcsinh(v) recovers log(p / q).

    The conjugate at a given t, sup_u (u t - f(u)), is found by bisection and Newton steps in log u
    within |log u| <= 80 (f32) or 600 (f64); it is +inf if the maximizer lies above that bracket.
    Its derivative is u (envelope theorem), and the derivative of u is 1 / f''(u). At a kink of f
    the conjugate is correct, and the critic's gradient is one-sided.

    f(0) is evaluated at u = 1e-30 and taken as infinite if it still changes between 1e-15 and
    1e-30; f'(infinity) likewise at 1e30, against 1e15. If f converges more slowly, set the limits
    with `from_generator(f)._replace(at_zero=..., slope_at_infinity=...)`.

    Args:
      f: convex, elementwise on arrays u > 0, twice differentiable by JAX. D(P || P) = f(1), which
        is not required to be 0.

    Returns:
      FDivergence.

    Raises:
      ValueError: f is not convex, or not finite, on a grid of u from exp(-5) to exp(5).
    """

    def slope(u):
        return jax.jvp(f, (u,), (jnp.ones_like(u),))[1]

    def activation(v):
        return slope(_ratio(at_least_f32(v)))

    def composed_conjugate(v):
        u = _ratio(at_least_f32(v))
        return u * slope(u) - f(u)

    threshold, ends = _measure(f, slope)
    return FDivergence(
        lambda u: f(at_least_f32(u)),
        _conjugate(f, slope, ends),
        activation,
        composed_conjugate,
        threshold,
        ends.at_zero,
        ends.slope_at_infinity,
    )


class _Ends(NamedTuple):
    at_zero: Any
    slope_at_zero: Any
    slope_at_infinity: Any


def _ratio(v):
    return jnp.exp(jnp.arcsinh(v))


def _conjugate(f, slope, ends):
    """t -> sup_u (u t - f(u)) for the derivative `slope` of f."""

    def bracket(t):
        return 80.0 if t.dtype == jnp.float32 else 600.0

    @jax.custom_jvp
    def log_ratio(t):
        def narrow(i, state):
            low, high, x = state
            u = jnp.exp(x)
            value, curvature = jax.jvp(slope, (u,), (u,))
            # value > t alone would miss a NaN from an overflow at large u.
            too_high = jnp.where(jnp.isnan(value), x > 0, value > t)
            low, high = jnp.where(too_high, low, x), jnp.where(too_high, x, high)
            newton = x - (value - t) / curvature
            good = (i >= _BISECTIONS) & (newton >= low) & (newton <= high)
            return low, high, jnp.where(good, newton, (low + high) / 2)

        limit = jnp.full_like(t, bracket(t))
        start = (-limit, limit, jnp.zeros_like(t))
        return jax.lax.fori_loop(0, _BISECTIONS + _NEWTON_STEPS, narrow, start)[2]

    def above(t, x):
        return (t > ends.slope_at_infinity) | (x > bracket(t) - 0.1)

    def inside(t, x):
        return (t > ends.slope_at_zero) & ~above(t, x)

    @log_ratio.defjvp
    def _(primals, tangents):
        (t,) = primals
        x = log_ratio(t)
        curvature = jax.jvp(slope, (jnp.exp(x),), (jnp.exp(x),))[1]
        smooth = inside(t, x) & (curvature > 0)
        return x, tangents[0] * jnp.where(smooth, 1 / jnp.where(smooth, curvature, 1), 0)

    @jax.custom_jvp
    def conjugate(t):
        x = log_ratio(t)
        return jnp.where(above(t, x), jnp.inf, jnp.exp(x) * t - f(jnp.exp(x)))

    @conjugate.defjvp
    def _(primals, tangents):
        (t,) = primals
        x = log_ratio(t)
        return conjugate(t), tangents[0] * jnp.where(inside(t, x), jnp.exp(x), 0)

    return lambda t: conjugate(at_least_f32(t))


def _measure(f, slope):
    """Returns f'(1) and the limits of f, after a convexity check."""
    # Always in f64: at the ends f' may be a difference of large numbers.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        u = jnp.exp(jnp.linspace(-5.0, 5.0, 41))
        values = f(u)
        if not isinstance(values, jax.core.Tracer):
            _require_convex(u, values)
            ends = [float(x) for x in _ends(f, slope)]
            return float(slope(jnp.asarray(1.0))), _Ends(*ends)
    # f closes over a traced value: no check is possible, and the precision is that of the value.
    return slope(jnp.asarray(1.0)), _ends(f, slope)


def _require_convex(u, values):
    if jnp.shape(values) != u.shape:
        raise ValueError(f"f(u) {jnp.shape(values)} for u {u.shape}; expected an elementwise f")
    chords = jnp.diff(values) / jnp.diff(u)
    falls = ~(jnp.diff(chords) >= -1e-5 * (1 + jnp.abs(chords[1:])))
    if falls.any():
        raise ValueError(
            f"non-convex f near u = {float(u[1:-1][falls.argmax()]):.3g}; expected "
            "a convex function of u > 0, finite there"
        )


def _ends(f, slope):
    def limit(function, exponent, infinite):
        near, far = (function(jnp.asarray(10.0**k)) for k in (exponent / 2, exponent))
        settled = jnp.abs(far - near) <= 1e-3 * jnp.maximum(1, jnp.abs(near))
        return jnp.where(settled, far, infinite)

    return _Ends(limit(f, -30, math.inf), limit(slope, -30, -math.inf), limit(slope, 30, math.inf))
