"""Weight clipping."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float, require, require_scalar


def clip_weights(params, limit):
    """Clips every weight to [-limit, limit]; applied after each step of a WGAN critic.

    Arjovsky et al. 2017, algorithm 1 (arXiv 1701.07875), with limit 0.01. (`optax.clip` clips the
    updates, which does not bound the weights.)

    Args:
      params: pytree of arrays.
      limit: > 0, a scalar.

    Returns:
      A pytree like params, dtypes included; f32 for integers.

    Raises:
      ValueError: limit <= 0, or not a scalar.
    """
    require(above=0, limit=limit)
    require_scalar(limit=limit)

    def box(w):
        w = as_float(w)
        return jnp.clip(w, -limit, limit).astype(w.dtype)  # an f32 limit would promote bf16

    return jax.tree.map(box, params)
