"""Likelihoods and samples of a flow, in nats and bits per dimension."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.flows.bijector import Bijector, sum_event


class Base(NamedTuple):
    """Distribution of the latents, independent and identical for every element.

    Attributes:
      log_density: z -> log p(z) elementwise, in nats.
      draw: (key, shape, dtype) -> z.
    """

    log_density: Callable
    draw: Callable


def standard_normal() -> Base:
    """log p(z) = -z^2 / 2 - log(2 pi) / 2."""
    return Base(lambda z: -0.5 * (z**2 + math.log(2 * math.pi)), jax.random.normal)


def standard_logistic() -> Base:
    """log p(z) = -softplus(z) - softplus(-z): the prior of NICE (arXiv 1410.8516, section 3.4)."""
    return Base(lambda z: -jax.nn.softplus(z) - jax.nn.softplus(-z), jax.random.logistic)


def log_prob(bijector: Bijector, params, x, context=None, *, base: Base | None = None):
    """Log-density of x, in nats: log p(x) = sum log base(z) + log|det dz/dx|, z = forward(x).

    Args:
      bijector: the flow.
      params: its parameters.
      x: [B, ...].
      context: what the flow is conditioned on, or None.
      base: distribution of the latents, `standard_normal()` by default.

    Returns:
      [B], in nats, with all constants included.
    """
    base = base or standard_normal()
    z, logdet = bijector.forward(params, x, context)
    return logdet + sum(sum_event(base.log_density(leaf)) for leaf in jax.tree.leaves(z))


def sample(
    bijector: Bijector,
    params,
    key,
    shape,
    context=None,
    *,
    temperature=1.0,
    base: Base | None = None,
    dtype=jnp.float32,
):
    """Draw x = inverse(temperature * z), with z from the base distribution.

    The temperature scales all latents of a multiscale flow, not only the top one. It therefore
    scales the standard deviation of every conditional prior, as in Glow's own code (eps_std).

    Args:
      bijector: the flow.
      params: its parameters.
      key: a PRNG key, used once.
      shape: shape of x, [B, ...].
      context: what the flow is conditioned on, or None.
      temperature: factor on all latents, >= 0; a scalar, or [B] for one per example.
      base: distribution of the latents, `standard_normal()` by default.
      dtype: dtype of x.

    Returns:
      x of the given shape: continuous values, see `quantize` for pixels.
    """
    base = base or standard_normal()
    # Only shapes are computed here, but under shard_map the placeholder must vary over the same
    # mesh axes as z.
    latents = jax.eval_shape(
        lambda: bijector.forward(params, base.draw(key, tuple(shape), dtype), context)[0]
    )
    leaves, treedef = jax.tree.flatten(latents)
    temperature = jnp.asarray(temperature, dtype)

    def draw(key, leaf):
        z = base.draw(key, leaf.shape, leaf.dtype)
        return z * temperature.reshape(temperature.shape + (1,) * (z.ndim - temperature.ndim))

    keys = jax.random.split(key, len(leaves))
    z = jax.tree.unflatten(treedef, [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])
    return bijector.inverse(params, z, context)[0]


def bits_per_dim(log_prob, dims: int):
    """Converts nats per example to bits per dimension: -log_prob / (dims * log 2).

    The result is a codelength only for integer data. `log_prob` must then include the
    log-determinant that `dequantize` (or `variational_dequantize`) returns.

    Args:
      log_prob: [B], nats.
      dims: dimensions of one example, H * W * C for an image.

    Returns:
      [B], bits per dimension; an upper bound on the codelength in expectation over the noise.
    """
    return -log_prob / (dims * math.log(2))
