"""Smooth maximum, minimum, argmax and one-hot of scores.

Everything here reduces or normalises one axis, takes `where`, and counts -inf as masked and +inf
as the largest finite number. Adapt the temperature to the scores: a fraction of their standard
deviation is a start.
"""

import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import at_least_f32, require
from jaxgen.smooth.masking import like, log_softmax, masked_scores


def smooth_max(x, *, temperature=1.0, axis=-1, where=None):
    """tau log sum exp(x / tau), tau the temperature.

    max <= smooth_max <= max + tau log n; the gradient is softmax(x / tau). temperature -> 0 is
    max, -> infinity grows as tau log n: see `mellowmax`.

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis that is reduced.
      where: entries that count, broadcasts to x.

    Returns:
      x without `axis`, in at least f32. -inf, without gradient, where every entry is masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    return _smooth_max(x, temperature, axis, where)[0]


def smooth_min(x, *, temperature=1.0, axis=-1, where=None):
    """-tau log sum exp(-x / tau): `smooth_max` mirrored, so +inf counts as masked.

    min - tau log n <= smooth_min <= min. +inf, without gradient, where every entry is masked.
    Arguments and errors as for `smooth_max`.
    """
    require(above=0, temperature=temperature)
    return -_smooth_max(-at_least_f32(x), temperature, axis, where)[0]


def mellowmax(x, *, temperature=1.0, axis=-1, where=None):
    """tau log mean exp(x / tau) (Asadi and Littman 2017, arXiv 1612.05628), a lower bound of max.

    max - tau log n <= mellowmax <= max. temperature -> 0 is max, -> infinity is the mean.
    Arguments, masked rows and errors as for `smooth_max`.
    """
    require(above=0, temperature=temperature)
    value, valid = _smooth_max(x, temperature, axis, where)
    count = jnp.sum(valid, axis=axis, dtype=value.dtype)
    return value - temperature * jnp.log(jnp.maximum(count, 1))


def boltzmann_max(x, *, temperature=1.0, axis=-1, where=None):
    """sum p x with p = softmax(x / temperature): a mean that leans to the large scores.

    mean <= boltzmann_max <= max, and exact where all scores are equal, but not monotone in x.
    temperature -> 0 is max, -> infinity is the mean. Arguments, masked rows and errors as for
    `smooth_max`.
    """
    require(above=0, temperature=temperature)
    x, valid = masked_scores(x, where)
    p = jnp.exp(log_softmax(x, valid, temperature, axis)[0])
    return jnp.where(jnp.any(valid, axis=axis), jnp.sum(p * x, axis=axis), -jnp.inf)


def smooth_maximum(x, y, *, temperature=1.0):
    """(x + y + sqrt((x - y)^2 + tau^2)) / 2, elementwise, tau the temperature.

    Never below max(x, y), and tau / 2 above it where x = y; temperature -> 0 is max(x, y).

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
    # At a tie both terms are differentiated from the same side, whose slopes cancel rightly.
    return like(jnp.add(x, y), jnp.where(wide_x >= wide_y, wide_x, wide_y) + gap)


def smooth_minimum(x, y, *, temperature=1.0):
    """(x + y - sqrt((x - y)^2 + tau^2)) / 2, elementwise: `smooth_maximum` mirrored.

    Never above min(x, y), and tau / 2 below it where x = y.
    """
    require(above=0, temperature=temperature)
    return -smooth_maximum(-jnp.asarray(x), -jnp.asarray(y), temperature=temperature)


def soft_one_hot(x, *, temperature=1.0, axis=-1, where=None):
    """softmax(x / temperature), a smooth one-hot of the argmax.

    The Jacobian (diag p - p p^T) / temperature vanishes once p is saturated. temperature -> 0 is
    the one-hot argmax (ties share equally), -> infinity is uniform. For exact zeros use sparsemax,
    which is `optax.projections.projection_simplex`.

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis of the classes.
      where: entries that count, broadcasts to x; the others get 0.

    Returns:
      The shape and dtype of x. All 0, without gradient, where every entry is masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    return like(x, _softmax(x, temperature, axis, where))


def straight_through_one_hot(x, *, temperature=1.0, axis=-1, where=None):
    """one_hot(argmax x), with the gradient of `soft_one_hot`.

    The first of several equal maxima is taken. The gradient is biased: it belongs to another
    function. Arguments, masked rows and errors as for `soft_one_hot`.
    """
    require(above=0, temperature=temperature)
    scores, valid = masked_scores(x, where)
    log_p = log_softmax(scores, valid, temperature, axis)[0]
    # Of the scores, not of log_p: a high temperature rounds different scores to the same log_p.
    ordered = jnp.where(valid, scores, -jnp.inf)
    first = jnp.argmax(lax.stop_gradient(ordered), axis=axis, keepdims=True)
    hard = (lax.broadcasted_iota(first.dtype, scores.shape, axis % scores.ndim) == first) & valid
    p = jnp.exp(log_p)
    return like(x, hard + (p - lax.stop_gradient(p)))


def soft_argmax(x, *, temperature=1.0, axis=-1, where=None):
    """sum_i i p_i with p = softmax(x / temperature): the expected index.

    The gradient is p_j (j - mean) / temperature. Two peaks give an index between them (1.5 for
    equal peaks at 0 and 3), so this makes sense for indices that are places, such as pixels or
    frames, and one peak. temperature -> 0 is argmax (the mean index of ties), -> infinity the mean
    index. Divide by n - 1 for places in [0, 1].

    Args:
      x: scores.
      temperature: > 0, in units of x.
      axis: the axis that is reduced.
      where: entries that count, broadcasts to x.

    Returns:
      x without `axis`, in at least f32 (bf16 holds integers up to 256 only). 0, without gradient,
      where every entry is masked.

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
    """(sqrt(d^2 + tau^2) - d) / 2 without cancellation, for d >= 0."""
    ratio = jnp.minimum(distance / temperature, 1e9)  # its square must not overflow
    return 0.5 * temperature / (ratio + jnp.sqrt(ratio**2 + 1))
