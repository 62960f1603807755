"""Masking of scores, a masked log-softmax, and output dtypes."""

import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import at_least_f32


def masked_scores(x, where):
    """Returns (x, valid): finite x in at least f32, and the mask of its valid entries.

    An entry is valid where `where` is true and x is not -inf. Invalid entries are 0 in the returned
    x and get no gradient. +inf becomes the largest finite number.
    """
    x = at_least_f32(x)
    valid = x > -jnp.inf
    if where is not None:
        valid &= jnp.broadcast_to(where, x.shape)
    limits = jnp.finfo(x.dtype)
    return jnp.clip(jnp.where(valid, x, 0), limits.min, limits.max), valid


def log_softmax(x, valid, temperature, axis):
    """Returns (log p, top, log_total) with log p = (x - top) / temperature - log_total.

    log p is -inf at invalid entries. top and log_total keep `axis` with size 1; they are 0 in a row
    without valid entries.
    """
    some = jnp.any(valid, axis=axis, keepdims=True)
    floor = jnp.finfo(x.dtype).min
    top = jnp.max(jnp.where(valid, x, floor), axis=axis, keepdims=True)
    top = jnp.where(some, lax.stop_gradient(top), 0)
    z = jnp.where(valid, (x - top) / temperature, -jnp.inf)
    total = jnp.sum(jnp.exp(z), axis=axis, keepdims=True)
    log_total = jnp.log(jnp.where(some, total, 1))
    return z - log_total, top, log_total


def like(x, value):
    """`value` in the dtype of x if that is a float dtype, else unchanged."""
    dtype = jnp.asarray(x).dtype
    return value.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else value
