"""A flow for vectors that needs no assembling: couplings between learned linear maps."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.flows.autoregressive import MADE, autoregressive
from jaxgen.flows.bijector import Bijector, chain, repeat
from jaxgen.flows.coupling import Transform, affine, coupling
from jaxgen.flows.linear import actnorm, invertible_1x1
from jaxgen.models.mlp import MLP


def coupling_flow(
    dims: int,
    *,
    depth: int = 8,
    width: int = 50,
    layers: int = 1,
    transform: Transform | None = None,
) -> Bijector:
    """Couplings on vectors [B, D], each followed by a learned linear map, after one actnorm.

    actnorm, then `depth` times {coupling of halves whose network is an MLP, PLU linear map}: Glow's
    step (Kingma & Dhariwal 2018, arXiv 1807.03039) on vectors, with one actnorm. `init` needs a
    batch of data, whose mean and scale the actnorm takes. The networks have tanh, which bounds what
    an outlier does to the scales, hidden biases from N(0, 1), and a last layer of zeros. These
    choices were made on held-out likelihoods of small tables, see benchmarks/vector_flows.py.

    In one dimension there is nothing to couple, so every step is an elementwise transform whose
    parameters a network computes from the context.

    Args:
      dims: D, >= 1.
      depth: number of couplings, >= 1.
      width: units of each hidden layer.
      layers: hidden layers of each network, >= 1.
      transform: `affine()` by default; for a spline, take `rational_quadratic_spline(bound=4)`.

    Raises:
      ValueError: dims, depth or layers is below 1; x is not [B, dims].
    """
    if dims < 1 or layers < 1:
        raise ValueError(f"dims {dims}, layers {layers}; expected both at least 1")
    transform = transform or affine()
    hidden = (width,) * layers
    if dims == 1:
        step = autoregressive(partial(MADE, hidden=hidden, activation=nn.tanh), transform)
    else:
        network = partial(
            MLP,
            hidden=hidden,
            activation=nn.tanh,
            bias_init=nn.initializers.normal(1.0),
            last_init=nn.initializers.zeros,
        )
        step = chain(coupling(network, transform), invertible_1x1())
    flow = chain(actnorm(), repeat(step, depth))

    def checked(function):
        def run(first, x, context=None):
            if jnp.ndim(x) != 2 or jnp.shape(x)[1] != dims:
                raise ValueError(f"x {jnp.shape(x)}; expected [B, {dims}]")
            return function(first, x, context)

        return run

    return Bijector(checked(flow.init), checked(flow.forward), checked(flow.inverse), flow.backward)
