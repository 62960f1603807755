"""f-divergences built from a generator f by automatic differentiation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    Its derivative in t is u (envelope theorem), and in a number c that f closes over -df/dc at u;
    those of u follow from f'(u; c) = t. At a kink of f the conjugate is correct, and the critic's
    gradient is one-sided.

    Convexity is checked by f' on 4,001 points, log u = -5 ... 5 in steps of 0.0025: it must not
    fall by more than 1e-9 of its size from one point to the next. A dent that lies between two
    points, outside of that range or below that precision passes, and so does any f that closes
    over a traced number.

    f(0) is evaluated at u = 1e-30 and taken as infinite if it still changes between 1e-15 and
    1e-30; f'(infinity) likewise at 1e30, against 1e15. If f converges more slowly, set the limits
    with `from_generator(f)._replace(at_zero=..., slope_at_infinity=...)`.

    Args:
      f: convex, elementwise on arrays u > 0, twice differentiable by JAX. D(P || P) = f(1), which
        is not required to be 0.

    Returns:
      FDivergence.

    Raises:
      ValueError: f is not convex on that grid, or f, f' or f'' is not finite there. The first score
        of a critic is often 0, which is u = 1: |u - 1|^1.5 is refused.
    """
    slope = _slope(f)

    def activation(v):
        return slope(_ratio(at_least_f32(v)))

    def composed_conjugate(v):
        u = _ratio(at_least_f32(v))
        return u * slope(u) - f(u)

    threshold, ends = _measure(f, slope)
    return FDivergence(
        lambda u: f(at_least_f32(u)),
        _conjugate(f, (ends.slope_at_zero, ends.slope_at_infinity)),
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


def _conjugate(f, ends):
    """t -> sup_u (u t - f(u))."""

    def bracket(t):
        return 80.0 if t.dtype == jnp.float32 else 600.0

    def places(t, x, low, high):
        """Whether the maximizer is inside (0, infinity), and whether it is above all u."""
        above = (t > high) | (x > bracket(t) - 0.1)
        return (t > low) & ~above, above

    def conjugate(t):
        # What f closes over becomes an argument: a custom_jvp may not close over a tracer.
        pure, traced = jax.closure_convert(f, t)
        slope, curvature = _slope(pure), _slope(_slope(pure))
        low, high = (jnp.asarray(x, t.dtype) for x in ends)

        @jax.custom_jvp
        def log_ratio(t, low, high, *traced):
            return _search(lambda u: slope(u, *traced), t, bracket(t))

        @log_ratio.defjvp
        def _(primals, tangents):
            (t, low, high, *traced), (dt, _, _, *changes) = primals, tangents
            x = log_ratio(*primals)
            u = jnp.exp(x)
            change = dt - _along(lambda *c: slope(u, *c), traced, changes)
            steepness = u * curvature(u, *traced)
            smooth = places(t, x, low, high)[0] & (steepness > 0)
            return x, jnp.where(smooth, change / jnp.where(smooth, steepness, 1), 0)

        @jax.custom_jvp
        def value(t, low, high, *traced):
            x = log_ratio(t, low, high, *traced)
            _, above = places(t, x, low, high)
            return jnp.where(above, jnp.inf, jnp.exp(x) * t - pure(jnp.exp(x), *traced))

        @value.defjvp
        def _(primals, tangents):
            (t, low, high, *traced), (dt, _, _, *changes) = primals, tangents
            x = log_ratio(*primals)
            inside, above = places(t, x, low, high)
            u = jnp.exp(jnp.where(above, 0, x))  # f may overflow above
            of_f = jnp.where(above, 0, _along(lambda *c: pure(u, *c), traced, changes))
            return value(*primals), jnp.where(inside, u, 0) * dt - of_f

        return value(t, low, high, *traced)

    return lambda t: conjugate(at_least_f32(t))


def _slope(f):
    """f' of an elementwise f(u, *constants)."""
    return lambda u, *c: jax.jvp(lambda u: f(u, *c), (u,), (jnp.ones_like(u),))[1]


def _along(function, constants, changes):
    """Derivative of function(*constants) along the changes; 0 of none."""
    return jax.jvp(function, tuple(constants), tuple(changes))[1] if constants else 0


def _search(slope, t, bracket):
    """log u with slope(u) = t, by bisection and then Newton steps within |log u| <= bracket."""

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

    start = (jnp.full_like(t, -bracket), jnp.full_like(t, bracket), jnp.zeros_like(t))
    return jax.lax.fori_loop(0, _BISECTIONS + _NEWTON_STEPS, narrow, start)[2]


def _measure(f, slope):
    """Returns f'(1) and the limits of f, after a convexity check."""
    # Always in f64: at the ends f' may be a difference of large numbers.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        u = jnp.asarray(np.exp(np.linspace(-5.0, 5.0, 4001)))
        values = f(u)
        if not isinstance(values, jax.core.Tracer):
            _require_convex(f, slope, u, values)
            ends = [float(x) for x in _ends(f, slope)]
            return float(slope(jnp.asarray(1.0))), _Ends(*ends)
    # f closes over a traced value: no check is possible, and the precision is that of the value.
    return slope(jnp.asarray(1.0)), _ends(f, slope)


def _require_convex(f, slope, u, values):
    if jnp.shape(values) != u.shape:
        raise ValueError(f"f(u) {jnp.shape(values)} for u {u.shape}; expected an elementwise f")
    slopes, curvatures = (np.asarray(x) for x in jax.jvp(slope, (u,), (jnp.ones_like(u),)))
    values, u = np.asarray(values), np.asarray(u)
    size = np.abs(slopes)
    rises = np.diff(slopes) >= -1e-9 * (size[1:] + size[:-1])
    convex = np.isfinite(values) & np.append(rises, True)
    if not convex.all():
        raise ValueError(
            f"non-convex f near u = {u[convex.argmin()]:.3g}; expected a convex function of u > 0, "
            "finite there"
        )
    if not np.isfinite(curvatures).all():
        bad = u[np.isfinite(curvatures).argmin()]
        raise ValueError(f"infinite f'' at u = {bad:.3g}; expected a finite second derivative")


def _ends(f, slope):
    def limit(function, exponent, infinite):
        near, far = (function(jnp.asarray(10.0**k)) for k in (exponent / 2, exponent))
        settled = jnp.abs(far - near) <= 1e-3 * jnp.maximum(1, jnp.abs(near))
        return jnp.where(settled, far, infinite)

    return _Ends(limit(f, -30, math.inf), limit(slope, -30, -math.inf), limit(slope, 30, math.inf))
