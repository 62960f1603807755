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

    def level(left, right, _, low):
        if left.shape[-1] <= 8:  # for larger segments the means of all pairs are slower
            return _closed_level(left, right, low)
        return _solve(lambda level: _mean_shift(left, right, level), left, right)

    return _merge(y, jnp.zeros_like(y), level)


@jax.jit
def kl_isotonic_regression(z, w):
    """argmin_v sum e^(z_i - v_i) + e^(w_i) v_i subject to v_1 <= ... <= v_n, over the last axis.

    Blondel et al. 2020 (arXiv 2002.08871, section 3) with the order reversed. On a pool v is
    log sum e^z - log sum e^w. Merged as in `isotonic_regression`.

    Not differentiable; z may end in +inf.

    Args:
      z: [..., n], at least f32.
      w: finite, [..., n].

    Returns:
      v, of the shape and dtype of z.
    """

    def level(left, right, w, _):
        return _solve(lambda level: _log_ratio_shift(left, right, w, level), left, right)

    return _merge(z - w, w, level)


def _merge(v, w, level):
    """Merges fits of 1, 2, 4, ... elements; `level` gives that of two neighbours that cross."""
    *batch, n = v.shape
    merges = max(n - 1, 0).bit_length()
    pad = [(0, 0)] * len(batch) + [(0, 2**merges - n)]
    v, w = jnp.pad(v, pad, constant_values=jnp.inf), jnp.pad(w, pad)
    for merge in range(merges):
        shape = (*batch, 2 ** (merges - merge - 1), 2, 2**merge)
        left, right = v.reshape(shape)[..., 0, :], v.reshape(shape)[..., 1, :]
        low = right[..., 0]
        both = w.reshape(*shape[:-2], 2 ** (merge + 1))
        middle = jnp.where(left[..., -1] > low, level(left, right, both, low), low)[..., None]
        v = jnp.stack([jnp.minimum(left, middle), jnp.maximum(right, middle)], axis=-2)
    return v.reshape(*batch, 2**merges)[..., :n]


def _solve(shift, left, right):
    """Level of two fitted segments [..., h] that cross, by Newton's method."""
    low, high = right[..., 0], left[..., -1]
    crossed = high > low
    eps = jnp.finfo(left.dtype).eps
    tolerance = eps * jnp.maximum(jnp.abs(low), jnp.abs(high))

    def step(state):
        level, low, high, _, steps = state
        change = shift(level)
        low, high = jnp.where(change > 0, level, low), jnp.where(change < 0, level, high)
        # A Newton step, or bisection if it leaves the bracket, so that rounding cannot make the
        # iteration cycle.
        new = level + change
        good = ((new > low) & (new < high)) | (jnp.abs(change) <= tolerance)
        new = jnp.where(crossed, jnp.where(good, new, 0.5 * (low + high)), level)
        moved = jnp.any(jnp.abs(new - level) > tolerance)
        return new, low, high, moved, steps + 1

    level = jnp.where(crossed, 0.5 * (low + high), low)
    start = (level, low, high, jnp.any(crossed), jnp.sum(crossed) * 0)
    return lax.while_loop(lambda state: state[3] & (state[4] < 200), step, start)[0]


def _mean_shift(left, right, level):
    """Mean of what is out of order at the level, relative to it."""
    above = jnp.maximum(left - level[..., None], 0)
    below = jnp.maximum(level[..., None] - right, 0)
    moving = jnp.sum(jnp.sign(above) + jnp.sign(below), axis=-1)
    return jnp.sum(above - below, axis=-1) / jnp.maximum(moving, 1)


def _log_ratio_shift(left, right, w, level):
    """log sum e^(w + v) - log sum e^w of what is out of order at the level, relative to it."""
    level = level[..., None]
    moving = jnp.concatenate([left > level, right < level], axis=-1)
    w = jnp.where(moving, w, -jnp.inf)
    gap = jnp.where(moving, jnp.concatenate([left, right], axis=-1) - level, 0)
    total = lambda logits: jax.nn.logsumexp(logits, axis=-1)  # noqa: E731
    return jnp.where(jnp.any(moving, axis=-1), total(w + gap) - total(w), 0)


def _closed_level(left, right, low):
    """max_j min_k of the mean of the last j entries of `left` and the first k of `right`."""
    low = low[..., None]  # relative to `low`, the sums of the chosen means do not cancel
    left = jnp.cumsum((left - low)[..., ::-1], axis=-1)
    right = jnp.cumsum(right - low, axis=-1)
    j = np.arange(1, left.shape[-1] + 1)
    share = jnp.broadcast_to(jnp.asarray(1 / (j[:, None] + j), left.dtype), (*left.shape, j.size))
    means = (left[..., :, None] + right[..., None, :]) * share
    return low[..., 0] + jnp.max(jnp.min(means, axis=-1), axis=-1)
