"""Soft top-k: weights in [0, 1] that sum to k, from a threshold with an implicit gradient.

p_i = F(x_i / tau - lambda) with F a cumulative distribution function and lambda such that
sum p = k (kexue.fm/archives/10373). Larger scores have larger weights, equal scores have equal
weights, and p is invariant to adding a constant to x.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgen.arguments import require
from jaxgen.smooth.masking import axis_last, like, masked_scores


class _Law(NamedTuple):
    """A symmetric distribution on the line: F, log F' and the inverse of F."""

    cdf: Callable
    log_density: Callable
    quantile: Callable


def _minus_abs(u):
    """-|u|. At 0 the slope is that of u < 0, as that of the other branches is."""
    return jnp.where(u > 0, -u, u)


def _laplace_cdf(u):
    tail = 0.5 * jnp.exp(_minus_abs(u))
    return jnp.where(u > 0, 1 - tail, tail)


_LOGISTIC = _Law(
    jax.nn.sigmoid,
    lambda u: -jnp.abs(u) - 2 * jnp.log1p(jnp.exp(-jnp.abs(u))),
    lambda p: jnp.log(p) - jnp.log1p(-p),
)
_LAPLACE = _Law(
    _laplace_cdf,
    lambda u: _minus_abs(u) - np.log(2),
    lambda p: jnp.where(p < 0.5, jnp.log(2 * p), -jnp.log(2 * (1 - p))),
)


def sigmoid_top_k(x, k: int, *, temperature=1.0, axis=-1, where=None):
    """p_i = sigmoid(x_i / tau - lambda) with sum p = k, tau the temperature.

    temperature -> 0 gives 1 for the k largest scores and 0 for the others (scores tied at the
    boundary share the weight), temperature -> infinity gives k / n. The gradient of the threshold
    is implicit, dlambda/dx_j = F'_j / (tau sum F'), and exact in forward and reverse mode, to any
    order.

    Args:
      x: scores.
      k: a Python integer, 1 <= k <= n; k = n gives all 1.
      temperature: > 0, in units of x; try a fraction of the standard deviation of the scores.
      axis: the axis of the n scores.
      where: mask of the entries to include, broadcasts to x; masked entries and scores of -inf get
        0.

    Returns:
      The shape and dtype of x. Where at most k entries are unmasked, each of them gets 1, without
      gradient.

    Raises:
      ValueError: temperature <= 0, or k is not a Python integer in [1, n].
    """
    return _top_k(_LOGISTIC, x, k, temperature, axis, where)


def laplace_top_k(x, k: int, *, temperature=1.0, axis=-1, where=None):
    """p_i = F(x_i / tau - lambda) with sum p = k and F the Laplace distribution function.

    F(u) = e^u / 2 for u <= 0 and 1 - e^-u / 2 for u > 0. For k = 1 it equals softmax(x / tau) if
    the threshold is above all scores, that is if sum exp((x - max x) / tau) >= 2; otherwise the
    largest score has less weight than with softmax. Limits, arguments, result and errors as for
    `sigmoid_top_k`.
    """
    return _top_k(_LAPLACE, x, k, temperature, axis, where)


def _top_k(law, x, k, temperature, axis, where):
    require(above=0, temperature=temperature)
    n = jnp.shape(x)[axis]
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= n:
        raise ValueError(f"k {k}; expected a Python integer >= 1 and <= {n}, the number of scores")
    scores, valid, temperature = axis_last(axis, *masked_scores(x, where), temperature)
    limit = jnp.finfo(scores.dtype).max / 4
    # Solved twice: a threshold far from 0 is rounded coarsely. What remains of the scores once a
    # number near it is subtracted is exact.
    fixed = lax.stop_gradient(scores)
    largest = jnp.max(jnp.abs(fixed), axis=-1, keepdims=True)
    unit = jnp.maximum(lax.stop_gradient(temperature), largest / limit)
    rough = _solve(law, k, fixed / unit, valid)
    # Without the select XLA fuses the product into some of the differences, unrounded there.
    centre = jnp.where(jnp.isnan(rough), rough, unit * rough)
    z = jnp.clip((scores - centre) / temperature, -limit, limit)
    p = law.cdf(z - _threshold(law, k, z, valid))
    few = (jnp.sum(valid, axis=-1, keepdims=True) <= k) & ~jnp.isnan(centre)
    p = jnp.where(valid, jnp.where(few, 1, p), 0)
    return like(x, jnp.moveaxis(p, -1, axis))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _threshold(law, k, z, valid):
    """Solves sum F(z - lambda) = k for lambda over the last axis, which is kept with size 1."""
    return _solve(law, k, z, valid)


@_threshold.defjvp
def _threshold_jvp(law, k, primals, tangents):
    z, valid = primals
    threshold = _threshold(law, k, z, valid)
    # In logs, in case all densities underflow.
    log_density = jnp.where(valid, law.log_density(z - threshold), -jnp.inf)
    top = jnp.max(log_density, axis=-1, keepdims=True)
    weights = jnp.exp(log_density - lax.stop_gradient(jnp.where(top > -jnp.inf, top, 0)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    return threshold, jnp.sum(weights * tangents[0], axis=-1, keepdims=True)


@partial(jax.jit, static_argnums=(0, 1))  # outside of jit the loop would recompile every time
def _solve(law, k, z, valid):
    """Newton's method from 0, with bisection if a step leaves the bracket."""
    count = jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True, dtype=z.dtype), 1)
    quantile = law.quantile(jnp.minimum(k, count - 0.5) / count)
    limits = jnp.finfo(z.dtype)
    top = jnp.max(jnp.where(valid, z, limits.min / 4), axis=-1, keepdims=True)
    bottom = jnp.min(jnp.where(valid, z, top), axis=-1, keepdims=True)

    def step(state):
        threshold, low, high, _, steps = state
        u = z - threshold
        excess = jnp.sum(law.cdf(u), axis=-1, keepdims=True, where=valid) - k
        slope = jnp.sum(jnp.exp(law.log_density(u)), axis=-1, keepdims=True, where=valid)
        low, high = jnp.where(excess > 0, threshold, low), jnp.where(excess < 0, threshold, high)
        new = threshold + excess / jnp.maximum(slope, limits.tiny)
        new = jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        # F hardly changes within a part eps of its unit.
        moved = jnp.abs(new - threshold) > limits.eps * jnp.maximum(jnp.abs(threshold), 1)
        unsolved = moved & (jnp.abs(excess) > limits.eps * k)
        found = threshold + 0 * excess  # NaN if a score is
        return jnp.where(unsolved, new, found), low, high, jnp.any(unsolved), steps + 1

    low, high = bottom - quantile, top - quantile
    start = (jnp.clip(0, low, high), low, high, jnp.any(valid), jnp.sum(valid) * 0)
    return lax.while_loop(lambda state: state[3] & (state[4] < 200), step, start)[0]
