"""An f-divergence from its generator alone: the rest follows by automatic differentiation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32
from jaxgen.divergences.f_divergence import FDivergence

_BISECTIONS = 16  # bring log u to within 0.003 (f32) or 0.02 (f64) ...
_NEWTON_STEPS = 40  # ... and a handful of these would do, but a kink of f makes them bisect on


def from_generator(f) -> FDivergence:
    """The `FDivergence` of any convex f: `from_generator(lambda u: (u - 1) ** 2)`.

    The critic's score v stands for the density ratio u = v + sqrt(1 + v^2) = exp(arcsinh v), so
    that

        T = f'(u),   f*(T) = u f'(u) - f(u)

    need no root finding. u covers (0, infinity), is increasing in v and grows linearly only: the
    difference above is exact to about eps |f(u)|, which for u = exp(v) would be lost in f32 at
    v = 16 wherever f'(infinity) is finite. Recover log(p / q) as arcsinh(v).

    The conjugate at a given t, sup_u (u t - f(u)), is found by bisection and Newton steps in
    log u inside the bracket |log u| <= 80 (f32) or 600 (f64), and is +inf if u lies above it; its
    derivative is u (the envelope theorem) and the derivative of u is 1 / f''(u). At a kink of f
    the conjugate is right, but the critic's gradient there is that of one side.

    f(0) and f'(infinity) are read off at u = 1e-30 and 1e30, and taken as infinite if they still
    change between 1e-15 and 1e-30 (1e15 and 1e30); where f is steeper than that, say so with
    `from_generator(f)._replace(at_zero=..., slope_at_infinity=...)`.

    Args:
      f: elementwise on arrays u > 0, differentiable twice by JAX, convex. f(1) = 0 makes
        D(P || P) = 0; another constant shifts D and is left alone.

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
            # Not (value > t): an overflow to NaN far from 1 is a step too far, too.
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
    """f'(1) and the ends of f, after a look at whether f is convex."""
    # In f64, whatever the mode: f' is a difference of large numbers at the ends.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        u = jnp.exp(jnp.linspace(-5.0, 5.0, 41))
        values = f(u)
        if not isinstance(values, jax.core.Tracer):
            _require_convex(u, values)
            ends = [float(x) for x in _ends(f, slope)]
            return float(slope(jnp.asarray(1.0))), _Ends(*ends)
    # f closes over a traced number: nothing to see, and its own precision.
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
