"""Likelihoods and samples of a flow, in nats and bits per dimension."""

import math

import jax
import jax.numpy as jnp

from jaxgen import arguments
from jaxgen.flows.bases import Base, standard_normal
from jaxgen.flows.bijector import Bijector, batched


def log_prob(bijector: Bijector, params, x, context=None, *, base: Base | None = None):
    """Log-density of x, in nats: log p(x) = log base(z) + log|det dz/dx|, z = forward(x).

    Args:
      bijector: the flow.
      params: its parameters.
      x: [B, ...].
      context: what the flow is conditioned on, or None. Its arrays are [B, ...], or [1, ...] for
        one context of all examples.
      base: distribution of the latents, `standard_normal()` by default.

    Returns:
      [B], in nats, with all constants included, at least f32.

    Raises:
      ValueError: x has no batch axis, or the context has another number of examples.
    """
    base = base or standard_normal()
    x = jax.tree.map(batched, x)
    batch = jax.tree.leaves(x)[0].shape[:1]
    z, logdet = bijector.forward(params, x, _for_each(context, batch))
    return base.log_prob(z) + logdet


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
    """Draw x = inverse(z), with z from the base distribution at a temperature.

    The temperature multiplies the deviation of z from the base's mean (of the mean of the
    component that was drawn, in a mixture). It scales all latents of a multiscale flow, not only
    the top one, and therefore the standard deviation of every conditional prior, as in Glow's own
    code (eps_std).

    Args:
      bijector: the flow.
      params: its parameters.
      key: a PRNG key, used once.
      shape: shape of x, [B, ...].
      context: what the flow is conditioned on, or None. Its arrays are [B, ...], or [1, ...] for
        B samples of one context.
      temperature: >= 0; a scalar, or [B] for one per example.
      base: distribution of the latents, `standard_normal()` by default.
      dtype: dtype of x.

    Returns:
      x of the given shape: continuous values, see `quantize` for pixels.

    Raises:
      ValueError: temperature is negative or not finite, or the context has another number of
        examples than x.
    """
    arguments.require(least=0, temperature=temperature)
    base = base or standard_normal()
    context = _for_each(context, tuple(shape)[:1])
    like = _latents(bijector, params, key, shape, context, dtype)
    return bijector.inverse(params, base.sample(key, like, temperature), context)[0]


def sample_and_log_prob(
    bijector: Bijector,
    params,
    key,
    shape,
    context=None,
    *,
    base: Base | None = None,
    dtype=jnp.float32,
):
    """Draw x = inverse(z) and return log p(x) as well, by one pass through the inverse.

    log p(x) = log base(z) - log|det dx/dz|. Both are differentiable in params: this is what
    variational inference and importance sampling need.

    Args:
      bijector: the flow.
      params: its parameters.
      key: a PRNG key, used once.
      shape: shape of x, [B, ...].
      context: as in `sample`.
      base: distribution of the latents, `standard_normal()` by default.
      dtype: dtype of x.

    Returns:
      (x of the given shape, log p(x) [B] in nats, at least f32).

    Raises:
      ValueError: the context has another number of examples than x.
    """
    base = base or standard_normal()
    context = _for_each(context, tuple(shape)[:1])
    like = _latents(bijector, params, key, shape, context, dtype)
    z = base.sample(key, like)
    x, logdet = bijector.inverse(params, z, context)
    return x, base.log_prob(z) - logdet


def _latents(bijector, params, key, shape, context, dtype):
    """Shapes and dtypes of the latents of x."""
    # Under shard_map the placeholder must vary over the same mesh axes as z, as what is drawn does.
    x = jax.eval_shape(lambda key: jax.random.normal(key, tuple(shape), dtype), key)
    return jax.eval_shape(bijector.forward, params, x, context)[0]


def _for_each(context, batch):
    """The context with one row for each example of the batch, a tuple of one number."""

    def repeated(leaf):
        shape = jnp.shape(leaf)
        if shape[:1] not in ((), (1,), batch):
            raise ValueError(f"context {shape}; expected {batch[0]} examples as in x, or 1 for all")
        return jnp.broadcast_to(leaf, batch + shape[1:]) if shape[:1] == (1,) else leaf

    return jax.tree.map(repeated, context)


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
