"""Weights held to a box."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import require


def clip_weights(params, limit):
    """Every weight to [-limit, limit]: the projection after each step of a WGAN's critic.

    Arjovsky et al. 2017, algorithm 1 (arXiv 1701.07875), with 0.01. (`optax.clip` clips the
    updates, which does not bound the weights.)

    Args:
      params: pytree of arrays.
      limit: > 0.

    Returns:
      A pytree like params, dtypes included.

    Raises:
      ValueError: limit <= 0.
    """
    require("clip_weights", above=0, limit=limit)
    return jax.tree.map(lambda w: jnp.clip(w, -limit, limit), params)
