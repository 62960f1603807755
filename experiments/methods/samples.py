"""Many samples, drawn block by block."""

from collections.abc import Callable

import jax
import numpy as np


def in_blocks(draw: Callable, key, count: int, block: int = 1000) -> np.ndarray:
    """Draws in blocks of one size, so that one compiled program serves all.

    Args:
      draw: (key, B) -> [B, ...].
      key: a PRNG key, used once.
      count: number of samples.
      block: samples that are drawn at once, at most.

    Returns:
      numpy array [count, ...].
    """
    block = min(block, count)
    keys = jax.random.split(key, -(-count // block))
    return np.concatenate([np.asarray(draw(k, block)) for k in keys])[:count]
