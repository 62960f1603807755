"""Isotonic regression: the closest non-decreasing sequence."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.jit
def isotonic_regression(y):
    """argmin_v sum (y_i - v_i)^2 subject to v_1 <= ... <= v_n, over the last axis of y.

    Instead of the sequential pool-adjacent-violators algorithm, fits of neighbouring segments of 1,
    2, 4, ... elements are merged, all pairs in parallel. Two fitted segments L and R are merged
    at the level s with sum max(L - s, 0) = sum max(s - R, 0); the merged fit is min(L, s) followed
    by max(R, s). Entries of one pool are exactly equal. There are ceil(log2 n) merges, each a few
    passes over the data and each compiled separately; those of segments up to 8 elements need no
    loop. The function is jitted so that calls outside of jit do not recompile the loops.

    Not differentiable; y may end in +inf.

    Args:
      y: [..., n], at least f32.

    Returns:
      v, of the shape and dtype of y.
    """
    *batch, n = y.shape
    size = jnp.max(jnp.where(jnp.isfinite(y), jnp.abs(y), 0), axis=-1, keepdims=True)
    tolerance = jnp.finfo(y.dtype).eps * size
    merges = (n - 1).bit_length()
    pad = [(0, 0)] * len(batch) + [(0, 2**merges - n)]
    v = jnp.pad(y, pad, constant_values=jnp.inf)
    for merge in range(merges):
        pairs = v.reshape(*batch, 2 ** (merges - merge - 1), 2, 2**merge)
        left, right = pairs[..., 0, :], pairs[..., 1, :]
        level = _level(left, right, tolerance)[..., None]
        v = jnp.stack([jnp.minimum(left, level), jnp.maximum(right, level)], axis=-2)
    return v.reshape(*batch, 2**merges)[..., :n]


def _level(left, right, tolerance):
    """Merge level of two fitted segments [..., h]; right[0] where they are already in order."""
    low, high = right[..., 0], left[..., -1]
    crossed = high > low
    if left.shape[-1] <= 8:  # for larger h the h^2 means are slower than the loop
        return jnp.where(crossed, _closed_level(left, right, low), low)

    def step(state):
        level, low, high, _, steps = state
        above = jnp.maximum(left - level[..., None], 0)
        below = jnp.maximum(level[..., None] - right, 0)
        excess = jnp.sum(above - below, axis=-1)
        moving = jnp.sign(above) + jnp.sign(below)
        low, high = jnp.where(excess > 0, level, low), jnp.where(excess < 0, level, high)
        # A Newton step, or bisection if it leaves the bracket, so that rounding cannot make the
        # iteration cycle.
        new = level + excess / jnp.maximum(jnp.sum(moving, axis=-1), 1)
        good = ((new > low) & (new < high)) | (jnp.abs(new - level) <= tolerance)
        new = jnp.where(crossed, jnp.where(good, new, 0.5 * (low + high)), level)
        moved = jnp.any(jnp.abs(new - level) > tolerance)
        return new, low, high, moved, steps + 1

    level = jnp.where(crossed, 0.5 * (low + high), low)
    start = (level, low, high, jnp.any(crossed), jnp.sum(crossed) * 0)
    return lax.while_loop(lambda state: state[3] & (state[4] < 200), step, start)[0]


def _closed_level(left, right, low):
    """max_j min_k of the mean of the last j entries of `left` and the first k of `right`."""
    low = low[..., None]  # relative to `low`, the sums of the chosen means do not cancel
    left = jnp.cumsum((left - low)[..., ::-1], axis=-1)
    right = jnp.cumsum(right - low, axis=-1)
    j = np.arange(1, left.shape[-1] + 1)
    share = jnp.broadcast_to(jnp.asarray(1 / (j[:, None] + j), left.dtype), (*left.shape, j.size))
    means = (left[..., :, None] + right[..., None, :]) * share
    return low[..., 0] + jnp.max(jnp.min(means, axis=-1), axis=-1)
