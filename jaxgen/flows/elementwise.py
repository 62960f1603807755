"""A transform whose parameters are learned numbers, not a network's output."""

import jax.numpy as jnp

from jaxgen.arguments import as_float
from jaxgen.flows.bijector import Bijector, sum_event
from jaxgen.flows.coupling import Transform


def elementwise(transform: Transform) -> Bijector:
    """z[..., c] = T(x[..., c]; raw_c): one transform for each channel, the same for every example.

    With `rational_quadratic_spline()` it models the marginal densities, such as any density in one
    dimension (Durkan et al. 2019, section 3, arXiv 1906.04032). It starts as the identity; put
    `actnorm()` before a spline, whose interval should hold the data.

    Args:
      transform: `affine()` or `rational_quadratic_spline()`; params is its raw, [size * C].

    Raises:
      ValueError: x has no batch axis, or another number of channels than params.
    """

    def raw_of(params, x):
        size = transform.size * x.shape[-1]
        if x.ndim < 2 or params.shape != (size,):
            raise ValueError(f"x {x.shape}, params {params.shape}; expected [B, ..., C], [{size}]")
        return jnp.broadcast_to(params, (*x.shape[:-1], size))

    def init(key, x, context=None):
        del key, context
        x = as_float(x)
        return jnp.zeros(transform.size * x.shape[-1], jnp.promote_types(x.dtype, jnp.float32))

    def forward(params, x, context=None):
        del context
        x = as_float(x)
        z, log_slope = transform.forward(raw_of(params, x), x)
        return z.astype(x.dtype), sum_event(log_slope)

    def inverse(params, z, context=None):
        del context
        z = as_float(z)
        x, log_slope = transform.inverse(raw_of(params, z), z)
        return x.astype(z.dtype), sum_event(log_slope)

    return Bijector(init, forward, inverse)
