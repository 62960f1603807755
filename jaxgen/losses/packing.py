"""Packing: the critic scores several examples jointly."""

import jax.numpy as jnp

from jaxgen.arguments import require_integer


def pack(x, size):
    """Joins `size` examples along the last axis: [B, ..., C] -> [B / size, ..., size C].

    Lin et al. 2017 (PacGAN, arXiv 1712.04086): a critic that sees m examples from the same source
    jointly can detect a lack of diversity. Any loss applies to its B / m scores. Pack real and fake
    examples separately; a pack holds `size` consecutive examples.

    Args:
      x: [B, ..., C].
      size: m >= 1, a divisor of B; 1 returns x unchanged.

    Returns:
      [B / size, ..., size C], in the dtype of x.

    Raises:
      ValueError: size is not an integer that divides B, or x has fewer than two axes.
    """
    x = jnp.asarray(x)
    require_integer(least=1, size=size)
    if x.ndim < 2 or x.shape[0] % size:
        raise ValueError(f"size {size}; expected a divisor of B for x {x.shape}, [B, ..., C]")
    packs = jnp.moveaxis(x.reshape(-1, size, *x.shape[1:]), 1, -2)
    return packs.reshape(*packs.shape[:-2], -1)
