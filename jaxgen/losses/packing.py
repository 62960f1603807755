"""Packing: the critic judges several examples at once."""

import jax.numpy as jnp


def pack(x, size):
    """Joins `size` examples at a time along the last axis: [B, ..., C] -> [B / size, ..., size C].

    Lin et al. 2017 (PacGAN, arXiv 1712.04086): a critic that sees m examples of one source at once
    sees also that they lack variety. Any loss applies to its B / m scores. Pack reals with reals,
    fakes with fakes; the examples of a pack are `size` in a row.

    Args:
      x: [B, ..., C].
      size: m >= 1, a divisor of B; 1 leaves x as it is.

    Returns:
      [B / size, ..., size C], in x's dtype.

    Raises:
      ValueError: size does not divide B, or x has no two axes.
    """
    x = jnp.asarray(x)
    if x.ndim < 2 or size < 1 or x.shape[0] % size:
        raise ValueError(f"size {size}; expected a divisor of B for x {x.shape}, [B, ..., C]")
    packs = jnp.moveaxis(x.reshape(-1, size, *x.shape[1:]), 1, -2)
    return packs.reshape(*packs.shape[:-2], -1)
