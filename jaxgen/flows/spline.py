"""Monotone rational-quadratic splines: Neural Spline Flows (Durkan et al. 2019, 1906.04032)."""

import math

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float, at_least_f32, require
from jaxgen.flows.coupling import Transform


def rational_quadratic_spline(
    bins: int = 8, bound: float = 3.0, min_bin: float = 0.02, min_slope: float = 0.1
) -> Transform:
    """A monotone spline through `bins + 1` knots on [-bound, bound], and the identity outside.

    In a bin of width w and height h, with s = h / w, slopes d0 and d1 at its ends and relative
    position t in [0, 1] (equation 4; the log-slope is equation 5):

        z = z0 + h (s t^2 + d0 t(1-t)) / (s + (d0 + d1 - 2s) t(1-t))

    The inverse is the root of a quadratic (equations 6 to 8). Inputs are clipped to the interval
    before any division, so that gradients outside it are those of the identity and never NaN. Both
    directions are computed in at least f32.

    Args:
      bins: number of bins, >= 1.
      bound: half-width of the interval, > 0.
      min_bin: minimum size of a bin as a fraction of the interval, > 0; bins * min_bin < 1.
      min_slope: minimum slope at a knot, in (0, 1); the maximum slope is 1 / min_slope.

    Raises:
      ValueError: an argument is out of range.
    """
    require(above=0, bins=bins, bound=bound)
    if bins % 1 or not 0 < bins * min_bin < 1 or not 0 < min_slope < 1:
        raise ValueError(
            f"bins {bins}, min_bin {min_bin}, min_slope {min_slope}; expected an integer, "
            "0 < bins * min_bin < 1 and 0 < min_slope < 1"
        )
    slope_offset = math.log(math.expm1(1 - min_slope))  # raw = 0 gives slope 1

    def knots(raw_sizes):
        share = min_bin + (1 - bins * min_bin) * jax.nn.softmax(raw_sizes, axis=-1)
        inner = jnp.cumsum(share, axis=-1)[..., :-1]
        ends = jnp.zeros_like(share[..., :1])
        return bound * (2 * jnp.concatenate([ends, inner, ends + 1], axis=-1) - 1)

    def parameters(raw, x):
        raw = at_least_f32(raw).reshape(*x.shape[:-1], 3 * bins - 1, x.shape[-1])
        raw = jnp.moveaxis(raw, -2, -1)
        slopes = min_slope + jax.nn.softplus(raw[..., 2 * bins :] + slope_offset)
        slopes = jnp.minimum(slopes, 1 / min_slope)  # their squares must not overflow
        one = jnp.ones_like(raw[..., :1])
        return (
            knots(raw[..., :bins]),
            knots(raw[..., bins : 2 * bins]),
            jnp.concatenate([one, slopes, one], axis=-1),
        )

    def locate(edges, value):
        """Finds the bin i of `value`; returns a function that reads entry i + offset of a table."""
        index = jnp.sum(value[..., None] >= edges[..., 1:-1], axis=-1, keepdims=True)
        return lambda table, offset: jnp.take_along_axis(table, index + offset, -1)[..., 0]

    def bin_of(raw, x, value, inverted):
        xs, zs, slopes = parameters(raw, x)
        at = locate(zs if inverted else xs, value)
        x0, z0 = at(xs, 0), at(zs, 0)
        width, height = at(xs, 1) - x0, at(zs, 1) - z0
        return x0, z0, width, height, at(slopes, 0), at(slopes, 1)

    def unit(t):
        # t leaves [0, 1] only by rounding. Clip it without clip's gradient, 1/2 at every knot.
        return t + jax.lax.stop_gradient(jnp.clip(t, 0, 1) - t)

    def log_slope(t, s, d0, d1):
        u = t * (1 - t)
        numerator = d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2
        return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(s + (d0 + d1 - 2 * s) * u)

    def outside_is_identity(value, result, slope):
        outside = jnp.abs(at_least_f32(value)) >= bound  # not so for NaN, which stays NaN
        result = jnp.where(outside, value, result.astype(value.dtype))
        return result, jnp.where(outside, 0, slope)

    def forward(raw, x):
        x = as_float(x)
        clipped = jnp.clip(at_least_f32(x), -bound, bound)
        x0, z0, width, height, d0, d1 = bin_of(raw, x, clipped, inverted=False)
        s = height / width
        t = unit((clipped - x0) / width)
        u = t * (1 - t)
        z = z0 + height * (s * t**2 + d0 * u) / (s + (d0 + d1 - 2 * s) * u)
        return outside_is_identity(x, z, log_slope(t, s, d0, d1))

    def inverse(raw, z):
        z = as_float(z)
        clipped = jnp.clip(at_least_f32(z), -bound, bound)
        x0, z0, width, height, d0, d1 = bin_of(raw, z, clipped, inverted=True)
        s = height / width
        y = clipped - z0
        curve = d0 + d1 - 2 * s
        a = height * (s - d0) + y * curve
        b = height * d0 - y * curve
        c = -s * y
        # b^2 - 4ac < 0 only by rounding. Of the two forms of the root, use the one that does not
        # suffer from cancellation.
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(b.dtype).tiny))
        t = unit(jnp.where(b < 0, root - b, 2 * c) / jnp.where(b < 0, 2 * a, -b - root))
        return outside_is_identity(z, x0 + t * width, -log_slope(t, s, d0, d1))

    return Transform(3 * bins - 1, forward, inverse)
