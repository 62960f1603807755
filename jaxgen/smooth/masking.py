"""Masking of scores, a masked log-softmax, and output dtypes."""

import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import at_least_f32


def masked_scores(x, where):
    """Returns (x, valid): x in at least f32 without infinities, and the mask of its valid entries.

    An entry is valid where `where` is true and x is not -inf. Invalid entries are 0 in the returned
    x and get no gradient. +inf becomes the largest finite number. NaN is valid and stays NaN.
    """
    x = at_least_f32(x)
    valid = x != -jnp.inf
    if where is not None:
        valid &= jnp.broadcast_to(where, x.shape)
    finite = jnp.where(x == jnp.inf, jnp.finfo(x.dtype).max, x)
    return jnp.where(valid, finite, 0), valid


def log_softmax(x, valid, temperature, axis):
    """Returns (log p, top, log_total) with log p = (x - top) / temperature - log_total.

    log p is -inf at invalid entries. top and log_total keep `axis` with size 1; they are 0 in a row
    without valid entries.
    """
    some = jnp.any(valid, axis=axis, keepdims=True)
    floor = jnp.finfo(x.dtype).min
    top = jnp.max(jnp.where(valid, x, floor), axis=axis, keepdims=True, initial=floor)
    top = jnp.where(some, lax.stop_gradient(top), 0)
    z = jnp.where(valid, (x - top) / temperature, -jnp.inf)
    total = jnp.sum(jnp.exp(z), axis=axis, keepdims=True)
    log_total = jnp.log(jnp.where(some, total, 1))
    return jnp.where(valid, z - log_total, -jnp.inf), top, log_total


def like(x, value):
    """`value` in the dtype of x if that is a float dtype, else unchanged."""
    dtype = jnp.asarray(x).dtype
    return value.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else value


def axis_last(axis, *arrays):
    """The arrays with `axis` moved to the end; scalars stay."""
    return [jnp.moveaxis(a, axis, -1) if jnp.ndim(a) else jnp.asarray(a) for a in arrays]
