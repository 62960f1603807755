"""Smooth maximum, minimum, argmax and one-hot of scores.

The functions with an `axis` reduce or normalise it, take a mask `where`, and treat -inf as masked
and +inf as the largest finite number. Scale the temperature to the scores: a fraction of their
standard deviation is a good start.
"""

import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import as_float, at_least_f32, require
from jaxgen.smooth.masking import like, log_softmax, masked_scores


def smooth_max(x, *, temperature=1.0, axis=-1, where=None):
    """tau log sum exp(x / tau), tau the temperature.

    max <= smooth_max <= max + tau log n; the gradient is softmax(x / tau). temperature -> 0
    gives max; for large temperatures it grows as tau log n, unlike `mellowmax`.

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis to reduce.
      where: mask of the entries to include, broadcasts to x.

    Returns:
      The shape of x without `axis`, in at least f32. -inf, without gradient, where every entry is
      masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    return _smooth_max(x, temperature, axis, where)[0]


def smooth_min(x, *, temperature=1.0, axis=-1, where=None):
    """-tau log sum exp(-x / tau): -smooth_max(-x), so +inf counts as masked.

    min - tau log n <= smooth_min <= min. The result is +inf, without gradient, where every entry is
    masked.
    Arguments and errors as for `smooth_max`.
    """
    require(above=0, temperature=temperature)
    return -_smooth_max(-at_least_f32(x), temperature, axis, where)[0]


def mellowmax(x, *, temperature=1.0, axis=-1, where=None):
    """tau log mean exp(x / tau) (Asadi and Littman 2017, arXiv 1612.05628), a lower bound on max.

    max - tau log n <= mellowmax <= max. temperature -> 0 gives max, temperature -> infinity gives
    the mean.
    Arguments, masked rows and errors as for `smooth_max`.
    """
    require(above=0, temperature=temperature)
    value, valid = _smooth_max(x, temperature, axis, where)
    count = jnp.sum(valid, axis=axis, dtype=value.dtype)
    return value - temperature * jnp.log(jnp.maximum(count, 1))


def boltzmann_max(x, *, temperature=1.0, axis=-1, where=None):
    """sum p x with p = softmax(x / temperature): the softmax-weighted mean.

    mean <= boltzmann_max <= max, with equality where all scores are equal. It is not monotone in x.
    temperature -> 0 gives max, temperature -> infinity gives the mean. Arguments, masked rows and
    errors as for `smooth_max`.
    """
    require(above=0, temperature=temperature)
    x, valid = masked_scores(x, where)
    log_p, top, _ = log_softmax(x, valid, temperature, axis)
    # Relative to the top: with a large offset in x the terms of the gradient would cancel.
    gap = jnp.maximum(x - top, jnp.finfo(x.dtype).min)  # 0 times infinity would be NaN
    value = jnp.sum(jnp.exp(log_p) * gap, axis=axis) + jnp.squeeze(top, axis)
    return jnp.where(jnp.any(valid, axis=axis), value, -jnp.inf)


def smooth_maximum(x, y, *, temperature=1.0):
    """(x + y + sqrt((x - y)^2 + tau^2)) / 2, elementwise, tau the temperature.

    At least max(x, y), and tau / 2 above it where x = y. temperature -> 0 gives max(x, y).

    Args:
      x: finite numbers.
      y: finite numbers of the same shape, or a scalar.
      temperature: > 0, in units of x.

    Returns:
      The shape and dtype of x + y.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    wide_x, wide_y = at_least_f32(x), at_least_f32(y)
    gap = _half_gap(jnp.abs(wide_x - wide_y), temperature)
    # At a tie both terms use the derivative from the same side, so the kinks cancel.
    return like(jnp.add(x, y), jnp.where(wide_x >= wide_y, wide_x, wide_y) + gap)


def smooth_minimum(x, y, *, temperature=1.0):
    """(x + y - sqrt((x - y)^2 + tau^2)) / 2, elementwise: -smooth_maximum(-x, -y).

    At most min(x, y), and tau / 2 below it where x = y. Arguments and errors as for
    `smooth_maximum`.
    """
    require(above=0, temperature=temperature)
    return -smooth_maximum(-as_float(x), -as_float(y), temperature=temperature)


def soft_one_hot(x, *, temperature=1.0, axis=-1, where=None):
    """softmax(x / temperature), a smooth one-hot argmax.

    The Jacobian (diag p - p p^T) / temperature vanishes once p is saturated. temperature -> 0 gives
    the one-hot argmax (ties share equally), temperature -> infinity the uniform distribution. For
    exact zeros use sparsemax, which is `optax.projections.projection_simplex`.

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis of the classes.
      where: mask of the entries to include, broadcasts to x; the others get 0.

    Returns:
      The shape and dtype of x. All 0, without gradient, where every entry is masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    return like(x, _softmax(x, temperature, axis, where))


def straight_through_one_hot(x, *, temperature=1.0, axis=-1, where=None):
    """one_hot(argmax x), with the gradient of `soft_one_hot`.

    Ties go to the first maximum. The gradient is biased: it is that of a different function.
    Arguments, masked rows and errors as for `soft_one_hot`.
    """
    require(above=0, temperature=temperature)
    scores, valid = masked_scores(x, where)
    log_p = log_softmax(scores, valid, temperature, axis)[0]
    # Uses the scores, because a high temperature can round different scores to the same log_p.
    ordered = jnp.where(valid, scores, -jnp.inf)
    top = jnp.max(ordered, axis=axis, keepdims=True, initial=-jnp.inf)
    index = lax.broadcasted_iota(jnp.int32, scores.shape, axis % scores.ndim)
    first = jnp.min(
        jnp.where(ordered == top, index, index.size), axis, keepdims=True, initial=index.size
    )
    hard = (index == first) & valid
    p = jnp.exp(log_p)
    return like(x, hard + (p - lax.stop_gradient(p)))


def soft_argmax(x, *, temperature=1.0, axis=-1, where=None):
    """sum_i i p_i with p = softmax(x / temperature): the expected index.

    The gradient is p_j (j - mean) / temperature. Two peaks give an index between them (1.5 for
    equal peaks at 0 and 3), so use it only for unimodal scores over positions such as pixels or
    frames. temperature -> 0 gives argmax (the mean index of ties), temperature -> infinity gives
    the mean index. Divide by n - 1 for positions in [0, 1].

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis to reduce.
      where: mask of the entries to include, broadcasts to x.

    Returns:
      The shape of x without `axis`, in at least f32 (bf16 represents integers only up to 256). 0,
      without gradient, where every entry is masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    p = _softmax(x, temperature, axis, where)
    return jnp.sum(p * lax.broadcasted_iota(p.dtype, p.shape, axis % p.ndim), axis=axis)


def _softmax(x, temperature, axis, where):
    x, valid = masked_scores(x, where)
    return jnp.exp(log_softmax(x, valid, temperature, axis)[0])


def _smooth_max(x, temperature, axis, where):
    x, valid = masked_scores(x, where)
    _, top, log_total = log_softmax(x, valid, temperature, axis)
    value = jnp.squeeze(top + temperature * log_total, axis)
    return jnp.where(jnp.any(valid, axis=axis), value, -jnp.inf), valid


def _half_gap(distance, temperature):
    """(sqrt(d^2 + tau^2) - d) / 2 for d >= 0, without cancellation."""
    ratio = jnp.minimum(distance / temperature, 1e9)  # its square must not overflow
    return 0.5 * temperature / (ratio + jnp.sqrt(ratio**2 + 1))
