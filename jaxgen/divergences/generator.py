"""An f-divergence from its generator alone: the rest follows by automatic differentiation."""

import math

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
    log u, which stay inside the bracket |log u| <= 80 (f32) or 600 (f64); its derivative is u
    (the envelope theorem) and the derivative of u is 1 / f''(u). At a kink of f the conjugate is
    right, but the critic's gradient there is that of one side.

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

    threshold, at_zero, slope_at_infinity = _measure(f, slope)
    return FDivergence(
        lambda u: f(at_least_f32(u)),
        _conjugate(f, slope),
        activation,
        composed_conjugate,
        threshold,
        at_zero,
        slope_at_infinity,
    )


def _ratio(v):
    return jnp.exp(jnp.arcsinh(v))


def _conjugate(f, slope):
    """t -> sup_u (u t - f(u)) for the derivative `slope` of f."""

    def ends(t):
        limit = 80.0 if t.dtype == jnp.float32 else 600.0
        return jnp.full_like(t, -limit), jnp.full_like(t, limit)

    def inside(t):
        low, high = ends(t)
        return (slope(jnp.exp(low)) < t) & (t < slope(jnp.exp(high)))

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

        start = (*ends(t), jnp.zeros_like(t))
        return jax.lax.fori_loop(0, _BISECTIONS + _NEWTON_STEPS, narrow, start)[2]

    @log_ratio.defjvp
    def _(primals, tangents):
        x = log_ratio(*primals)
        curvature = jax.jvp(slope, (jnp.exp(x),), (jnp.exp(x),))[1]
        smooth = inside(*primals) & (curvature > 0)
        return x, tangents[0] * jnp.where(smooth, 1 / jnp.where(smooth, curvature, 1), 0)

    @jax.custom_jvp
    def conjugate(t):
        u = jnp.exp(log_ratio(t))
        above = t > slope(jnp.exp(ends(t)[1]))
        return jnp.where(above, jnp.inf, u * t - f(u))

    @conjugate.defjvp
    def _(primals, tangents):
        u = jnp.exp(log_ratio(*primals))
        return conjugate(*primals), tangents[0] * jnp.where(inside(*primals), u, 0)

    return lambda t: conjugate(at_least_f32(t))


def _measure(f, slope):
    """f'(1), f(0) and f'(infinity), after a look at whether f is convex; nan where f is traced."""
    with jax.ensure_compile_time_eval():
        u = jnp.exp(jnp.linspace(-5.0, 5.0, 41))
        values = f(u)
        if isinstance(values, jax.core.Tracer):  # f closes over a traced number: nothing to see
            return slope(jnp.float32(1)), f(jnp.float32(1e-30)), slope(jnp.float32(1e30))
        chords = jnp.diff(values) / jnp.diff(u)
        falls = ~(jnp.diff(chords) >= -1e-4 * (1 + jnp.abs(chords[1:])))
        if falls.any():
            at = float(u[1:-1][falls.argmax()])
            raise ValueError(
                f"from_generator: non-convex f near u = {at:.3g}; expected a convex function of "
                "u > 0, finite there"
            )
        at_zero = _limit(*(float(f(jnp.asarray(u))) for u in (1e-15, 1e-30)))
        at_infinity = _limit(*(float(slope(jnp.asarray(u))) for u in (1e15, 1e30)))
        return float(slope(jnp.asarray(1.0))), at_zero, at_infinity


def _limit(near, far):
    return far if abs(far - near) <= 1e-3 * max(1.0, abs(near)) else math.inf
