"""Dequantization of integer data, the logit, and exact decoding to integers.

A flow models a continuous density, but an image is a vector of integers. With noise u in [0, 1)
added to each integer, the density bounds the probability of the image from below (Theis et al.
2016, arXiv 1511.01844; Ho et al. 2019, Flow++, arXiv 1902.00275):

    log P(x) >= E_u [ log p((x + u) / levels) - log q(u | x) ] - D log levels
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float, at_least_f32, require
from jaxgen.flows.bases import standard_normal
from jaxgen.flows.bijector import Bijector, batched, constant_logdet, sum_event


def dequantize(key, x, levels: int = 256):
    """Uniform dequantization: y = (x + u) / levels, u ~ U[0, 1).

    log P(x) >= E_u[log p(y)] + logdet: add `logdet` to the flow's `log_prob(y)`.

    Args:
      key: a PRNG key, used once.
      x: integers 0..levels-1, [B, ...], of any dtype. For 5-bit images, floor(x / 8) of 8-bit ones.
      levels: number of values a pixel can take, >= 2.

    Returns:
      (y [B, ...] in [0, 1), f32 (f64 under x64), logdet [B] = -D log levels, nats).

    Raises:
      ValueError: x has other values than 0..levels-1. A traced x, as under `jit`, is not checked.
    """
    x = _integers(x, levels)
    y = _inside_bin(x, jax.random.uniform(key, x.shape), levels)
    return y, constant_logdet(-math.prod(x.shape[1:]) * math.log(levels), y)


def variational_dequantize(flow: Bijector, params, key, x, levels: int = 256):
    """Dequantization with learned noise: u = sigmoid(f(eps; x)), eps ~ N(0, 1).

    Ho et al. 2019, section 3.1. log q(u|x) = log N(eps) - log|det df| - log sigmoid'(f). The bound
    has the form of `dequantize`'s and is tighter once f is trained.

    Args:
      flow: bijector f on [B, ...], called with the context x / levels - 1/2 of the same shape.
      params: its parameters.
      key: a PRNG key, used once.
      x: integers 0..levels-1, [B, ...], of any dtype.
      levels: number of values a pixel can take, >= 2.

    Returns:
      (y [B, ...] in [0, 1), f32 (f64 under x64), logdet [B] = -D log levels - log q(u|x), nats).

    Raises:
      ValueError: as in `dequantize`; or the flow's output has another shape than x, as that of
        `squeeze` or `multiscale` (undo it in the flow, or couple over `checkerboard()`).
    """
    x = _integers(x, levels)
    eps = jax.random.normal(key, x.shape)
    raw, flow_logdet = flow.forward(params, eps, x / levels - 0.5)
    if (shape := jax.tree.map(jnp.shape, raw)) != x.shape:
        raise ValueError(f"flow gives {shape} for x {x.shape}; expected the shape of x")
    log_sigmoid_slope = sum_event(jax.nn.log_sigmoid(raw) + jax.nn.log_sigmoid(-raw))
    log_q = standard_normal().log_prob(eps) - flow_logdet - log_sigmoid_slope
    y = _inside_bin(x, jax.nn.sigmoid(raw), levels)
    return y, constant_logdet(-math.prod(x.shape[1:]) * math.log(levels), y) - log_q


def _integers(x, levels):
    """x [B, ...] as f32, once its values, where they are known, are found in 0..levels-1."""
    require(least=2, levels=levels)
    known = not isinstance(x, jax.core.Tracer)
    x = batched(x).astype(jnp.float32)
    if known and not jnp.all((x == jnp.floor(x)) & (x >= 0) & (x <= levels - 1)):
        raise ValueError(f"x of {jnp.min(x):g} to {jnp.max(x):g}; expected 0, 1, .. {levels - 1}")
    return x


def _inside_bin(x, u, levels):
    """(x + u) / levels, kept a few rounding errors away from the edges of its bin.

    In f32, 200 + 0.999999 rounds to 201, and 255 + 0.999999 to 256, whose logit is infinite.
    """
    y = (x + u) / levels
    margin = 4 * jnp.finfo(y.dtype).eps
    return jnp.clip(y, x / levels * (1 + margin), (x + 1) / levels * (1 - margin))


def quantize(y, levels: int = 256):
    """Pixels of a continuous image: floor(y * levels), clipped to 0..levels-1.

    quantize(dequantize(x)) = x. The noise is lost, so the latents of a decoded image differ from
    those it was decoded from; for an exact round trip use the bijector's `inverse`.

    Args:
      y: [...], nominally in [0, 1).
      levels: number of values a pixel can take, >= 2.

    Returns:
      int32 [...].
    """
    require(least=2, levels=levels)
    y = as_float(y)
    return jnp.clip(jnp.floor(y * levels), 0, levels - 1).astype(jnp.int32)


def logit(alpha: float = 0.05) -> Bijector:
    """z = logit(alpha + (1 - 2 alpha) x), from pixels in [0, 1] to the real line.

    Dinh et al. 2017, section 4.1 (arXiv 1605.08803); the paper rescales by 1 - alpha, which leaves
    no margin at x = 1. The log-determinant includes both the logit and the rescaling, unlike in
    some common code. Both are computed in at least f32, because a bf16 pixel of 0.999 would round
    to 1.

    Pixels of |z| > 16.6 are within f32 rounding of those of infinite z, so `forward` gives +-16.6
    for them (36.7 in f64). It is NaN for pixels outside the range of `inverse`.

    Args:
      alpha: margin that keeps the logit finite, in (0, 1/2).

    Raises:
      ValueError: alpha is out of range.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha}; expected a number in (0, 0.5)")
    log_rescale = math.log(1 - 2 * alpha)

    def log_slope(z):
        # 1 / sigmoid'(z)
        return sum_event(log_rescale - jax.nn.log_sigmoid(z) - jax.nn.log_sigmoid(-z))

    def forward(params, x, context=None):
        x = batched(x)
        y = alpha + (1 - 2 * alpha) * at_least_f32(x)
        edge = jnp.finfo(y.dtype).eps / 2
        nearest = jnp.clip(y, edge, 1 - edge)
        rounded = jnp.abs(nearest - y) <= 4 * jnp.finfo(x.dtype).eps
        # Not clip's gradient, which is zero there.
        y = y + jax.lax.stop_gradient(jnp.where(rounded, nearest - y, 0))
        z = jnp.log(y) - jnp.log1p(-y)
        return z.astype(x.dtype), log_slope(z)

    def inverse(params, z, context=None):
        z = batched(z)
        wide = at_least_f32(z)
        x = (jax.nn.sigmoid(wide) - alpha) / (1 - 2 * alpha)
        return x.astype(z.dtype), -log_slope(wide)

    return Bijector(lambda key, x, context=None: (), forward, inverse)
