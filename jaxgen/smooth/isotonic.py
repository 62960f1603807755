"""Isotonic regression: the closest non-decreasing sequence."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.jit
def isotonic_regression(y):
    """argmin_v sum (y_i - v_i)^2 subject to v_1 <= ... <= v_n, over the last axis of y.

    In place of pool-adjacent-violators, which is one long loop, neighbouring stretches of 1, 2, 4,
    ... elements are merged, all pairs at once. Two fitted stretches L and R merge at the level s
    with sum max(L - s, 0) = sum max(s - R, 0): what L has above it fills what R lacks. The merged
    fit is min(L, s) and max(R, s). Pools are exactly equal numbers. There are log2(n) merges of a
    few passes over the data each; the code of every one is compiled, but for n <= 16 without a
    loop. (jit is for calls outside of it: their loops would be compiled anew each time.)

    Not differentiable; +inf is allowed at the end of y.

    Args:
      y: [..., n], at least f32.

    Returns:
      v, like y.
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
    """Where two fitted stretches [..., h] merge; between them where they are in order already."""
    low, high = right[..., 0], left[..., -1]
    crossed = high > low
    if left.shape[-1] <= 8:  # beyond that its h^2 means take longer than the steps
        return jnp.where(crossed, _closed_level(left, right, low), low)

    def step(state):
        level, low, high, _, steps = state
        above = jnp.maximum(left - level[..., None], 0)
        below = jnp.maximum(level[..., None] - right, 0)
        excess = jnp.sum(above - below, axis=-1)
        moving = jnp.sign(above) + jnp.sign(below)
        low, high = jnp.where(excess > 0, level, low), jnp.where(excess < 0, level, high)
        # Newton's step, or a bisection where it leaves the bracket, so that rounding cannot make
        # it go to and fro for ever.
        new = level + excess / jnp.maximum(jnp.sum(moving, axis=-1), 1)
        good = ((new > low) & (new < high)) | (jnp.abs(new - level) <= tolerance)
        new = jnp.where(crossed, jnp.where(good, new, 0.5 * (low + high)), level)
        moved = jnp.any(jnp.abs(new - level) > tolerance)
        return new, low, high, moved, steps + 1

    level = jnp.where(crossed, 0.5 * (low + high), low)
    start = (level, low, high, jnp.any(crossed), jnp.sum(crossed) * 0)
    return lax.while_loop(lambda state: state[3] & (state[4] < 200), step, start)[0]


def _closed_level(left, right, low):
    """max_j min_k of the mean of the last j of `left` and the first k of `right`."""
    low = low[..., None]  # counted from there the sums that are chosen do not cancel
    left = jnp.cumsum((left - low)[..., ::-1], axis=-1)
    right = jnp.cumsum(right - low, axis=-1)
    j = np.arange(1, left.shape[-1] + 1)
    share = jnp.broadcast_to(jnp.asarray(1 / (j[:, None] + j), left.dtype), (*left.shape, j.size))
    means = (left[..., :, None] + right[..., None, :]) * share
    return low[..., 0] + jnp.max(jnp.min(means, axis=-1), axis=-1)
