"""Masked autoregressive layers: every element is transformed given those before it.

Germain et al. 2015 (MADE, arXiv 1502.03509), Papamakarios et al. 2017 (MAF, arXiv 1705.07057).
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import as_float
from jaxgen.flows.bijector import Bijector, constant_logdet, sum_event
from jaxgen.flows.coupling import Transform
from jaxgen.models.mlp import join


class MADE(nn.Module):
    """An MLP whose output i depends on x_0 ... x_{i-1} and on the context alone.

    Germain et al. 2015, equations 8 and 9 (arXiv 1502.03509): every unit has a degree, and a weight
    is kept only if it leads to a unit of at least that degree, in the last layer of a greater one.
    The degrees of the hidden units are spread evenly over those of the inputs.

    Attributes:
      features: units out, a multiple of D; output j belongs to the element j % D.
      hidden: units of each hidden layer, at least D - 1 (D with a context).
      activation: applied between the layers.
      last_init: initializer of the last kernel. With zeros an autoregressive layer starts as the
        identity.
    """

    features: int
    hidden: Sequence[int] = (64, 64)
    activation: Callable = nn.relu
    last_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x, context=None):
        """[B, D], context [B, K] or None -> [B, features], computed in x's dtype."""
        dims = x.shape[-1]
        h = join(x, context)
        # The context has degree -1, below that of x_0: all outputs see it.
        he = nn.initializers.he_normal()
        lowest = 0 if context is None else -1
        count = max(dims - 1 - lowest, 1)
        degrees = np.concatenate([np.arange(dims), np.full(h.shape[-1] - dims, -1)])
        for width in self.hidden:
            if width < count:
                raise ValueError(f"hidden {self.hidden}; expected at least {count} for x {x.shape}")
            own = lowest + np.arange(width) * count // width
            h = self.activation(_masked(width, own >= degrees[:, None], x.dtype, he)(h))
            degrees = own
        own = np.arange(self.features) % dims
        return _masked(self.features, own > degrees[:, None], x.dtype, self.last_init)(h)


def _masked(features, mask, dtype, kernel_init):
    def product(x, kernel, dimensions, **options):
        return jax.lax.dot_general(x, kernel * mask.astype(kernel.dtype), dimensions, **options)

    wide = jnp.promote_types(dtype, jnp.float32)
    return nn.Dense(
        features, dtype=dtype, param_dtype=wide, kernel_init=kernel_init, dot_general=product
    )


def autoregressive(conditioner: Callable[[int], Any], transform: Transform) -> Bijector:
    """z_i = T(x_i; raw_i),  raw_i = net_i(x_0, ..., x_{i-1}, context).

    Papamakarios et al. 2017, equations 3 and 4 (arXiv 1705.07057), for any transform. `forward` is
    one pass of the network; `inverse` takes D passes, one element at a time, so sampling is slow.
    `invert` exchanges the two. Reverse the order between layers:

        repeat(chain(autoregressive(partial(MADE, hidden=(64, 64)), affine()), reversal()), 5)

    Args:
      conditioner: features -> network as in `coupling`, on [B, D], with MADE's dependencies.
      transform: `additive()`, `affine()` or `rational_quadratic_spline()`.

    Raises:
      ValueError: x is not [B, D].
    """

    def network(x):
        if x.ndim != 2:
            raise ValueError(f"x {x.shape}; expected [B, D]")
        return conditioner(transform.size * x.shape[-1])

    def init(key, x, context=None):
        x = as_float(x)
        return network(x).init(key, x, context)

    def forward(params, x, context=None):
        x = as_float(x)
        raw = network(x).apply(params, x, context)
        z, log_slope = transform.forward(raw, x)
        return z, sum_event(log_slope)

    @jax.jit  # one program for all calls that are not jitted, which the loop would compile anew
    def inverse(params, z, context=None):
        z = as_float(z)
        net = network(z)

        def find(i, carry):
            x, total = carry
            candidate, log_slope = transform.inverse(net.apply(params, x, context), z)
            chosen = jnp.broadcast_to(jnp.arange(z.shape[-1]) == i, z.shape)
            x = jnp.where(chosen, candidate, x)
            return x, total + sum_event(jnp.where(chosen, log_slope, 0))

        return jax.lax.fori_loop(0, z.shape[-1], find, (jnp.zeros_like(z), constant_logdet(0, z)))

    return Bijector(init, forward, inverse)
