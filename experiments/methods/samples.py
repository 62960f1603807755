"""Many samples, drawn block by block."""

from collections.abc import Callable

import jax
import numpy as np


def in_blocks(draw: Callable, key, count: int, block: int = 1000) -> np.ndarray:
    """Draws in blocks of one size, so that one compiled program serves all.

    Args:
      draw: (key, numbers [B] of the samples, 0, 1, ...) -> [B, ...].
      key: a PRNG key, used once.
      count: number of samples.
      block: samples that are drawn at once, at most.

    Returns:
      numpy array [count, ...].
    """
    block = min(block, count)
    keys = jax.random.split(key, -(-count // block))
    numbers = np.arange(len(keys) * block).reshape(-1, block)
    parts = [np.asarray(draw(k, own)) for k, own in zip(keys, numbers, strict=True)]
    return np.concatenate(parts)[:count]
