"""Smooth relu, abs, step, sign, floor, round, and a norm that is differentiable at 0.

`jax.nn.swish` (x sigmoid(x)) and `jax.nn.gelu` (x Phi(x)) are other smooth relus. Everything is
computed in at least f32 and returned in the dtype of x; integers become f32.
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require
from jaxgen.smooth.masking import like


def smooth_relu(x, *, temperature=1.0):
    """tau log(1 + exp(x / tau)), tau the temperature: softplus.

    max(x, 0) <= smooth_relu <= max(x, 0) + tau log 2, with the largest gap at 0. The derivative is
    `smooth_heaviside`. temperature -> 0 gives relu.

    Args:
      x: finite numbers of any shape.
      temperature: > 0, in units of x.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    return like(x, temperature * jax.nn.softplus(at_least_f32(x) / temperature))


def smooth_abs(x, *, temperature=1.0):
    """tau log cosh(x / tau), tau the temperature.

    |x| - tau log 2 <= smooth_abs <= |x|, and 0 at 0. The derivative is `smooth_sign`.
    temperature -> 0 gives |x|; tau = 1 is `optax.losses.log_cosh`. Arguments and errors as for
    `smooth_relu`.
    """
    require(above=0, temperature=temperature)
    ratio = at_least_f32(x) / temperature
    return like(x, temperature * (jnp.logaddexp(ratio, -ratio) - math.log(2)))


def charbonnier(x, *, temperature=1.0):
    """sqrt(x^2 + tau^2) - tau, tau the temperature: pseudo-Huber divided by tau.

    |x| - tau <= charbonnier <= |x|, and 0 at 0. The derivative x / sqrt(x^2 + tau^2) approaches +-1
    as 1 / x^2, more slowly than the exponential rate of `smooth_abs`. temperature -> 0 gives |x|.
    Arguments and errors as for `smooth_relu`.
    """
    require(above=0, temperature=temperature)
    ratio = at_least_f32(x) / temperature
    return like(x, temperature * (_hypot(ratio) - 1))


def smooth_heaviside(x, *, temperature=1.0):
    """sigmoid(x / tau), tau the temperature: the unit step, 1/2 at 0.

    The derivative is at most 1 / (4 tau) and almost 0 for |x| > 5 tau, so start with a high
    temperature and anneal. temperature -> 0 gives the step, temperature -> infinity gives 1/2.
    Arguments and errors as for `smooth_relu`.
    """
    require(above=0, temperature=temperature)
    return like(x, jax.nn.sigmoid(at_least_f32(x) / temperature))


def smooth_sign(x, *, temperature=1.0):
    """tanh(x / tau), tau the temperature.

    temperature -> 0 gives sign(x), temperature -> infinity gives 0. Arguments and errors as for
    `smooth_relu`.
    """
    require(above=0, temperature=temperature)
    return like(x, jnp.tanh(at_least_f32(x) / temperature))


def smooth_floor(x, *, temperature=0.1):
    """floor(x) convolved with a Cauchy density of scale w, the temperature.

    round(x) - 1/2 + atan(tan(pi d) / tanh(pi w)) / pi with d = x - round(x). This equals
    x - 1/2 + atan2(r sin(2 pi x), 1 - r cos(2 pi x)) / pi with r = exp(-2 pi w), but does not
    cancel for small w or lose precision for large x. The derivative is the Poisson kernel
    (1 - r^2) / (1 - 2 r cos(2 pi x) + r^2): positive, with mean 1 over a period. temperature -> 0
    gives floor(x) (x - 1/2 at the integers), temperature -> infinity gives x - 1/2.

    Args:
      x: finite numbers of any shape.
      temperature: > 0, in units of x.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    wide = at_least_f32(x)
    whole = jnp.round(wide)
    return like(x, whole - 0.5 + _smooth_step(wide - whole, temperature))


def smooth_round(x, *, temperature=0.1):
    """round(x) convolved with a Cauchy density of scale w, the temperature.

    Equals `smooth_floor` of x + 1/2. temperature -> 0 gives round(x) (x itself at half-integers),
    temperature -> infinity gives x. Arguments and errors as for `smooth_floor`.
    """
    require(above=0, temperature=temperature)
    wide = at_least_f32(x)
    middle = jnp.floor(wide) + 0.5
    return like(x, middle + _smooth_step(wide - middle, temperature))


def smooth_norm(x, *, temperature=1e-6, axis=-1, where=None):
    """sqrt(sum x^2 + tau^2), tau the temperature: the Euclidean norm, with gradient 0 at 0.

    norm <= smooth_norm <= norm + tau. temperature -> 0 gives the norm, whose gradient at 0 is NaN.

    Args:
      x: finite numbers, any shape; squares that overflow are handled.
      temperature: > 0, in units of x.
      axis: axis or axes to sum over; None for all.
      where: mask of the entries to include, broadcasts to x.

    Returns:
      The shape of x without `axis`, in at least f32; tau, without gradient, where every entry is
      masked.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    x = at_least_f32(x)
    if where is not None:
        x = jnp.where(jnp.broadcast_to(where, x.shape), x, 0)
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    unit = jnp.minimum(jnp.maximum(largest, temperature), 2.0**100)  # 1 / unit must not underflow
    unit = jax.lax.stop_gradient(unit)
    squares = jnp.sum((x / unit) ** 2, axis=axis, keepdims=True) + (temperature / unit) ** 2
    return jnp.squeeze(unit * jnp.sqrt(squares), axis)


def _smooth_step(d, temperature):
    """A smooth step from -1/2 to 1/2 for d in [-1/2, 1/2], centered at 0."""
    # The inverse slope at the step; its square must not underflow.
    sharp = jnp.maximum(jnp.tanh(math.pi * temperature), 1e-15)
    angle = math.pi * d
    return jnp.arctan2(jnp.sin(angle), sharp * jnp.cos(angle)) / math.pi


def _hypot(x):
    """sqrt(1 + x^2) without overflow."""
    unit = jax.lax.stop_gradient(jnp.clip(jnp.abs(x), 1, 2.0**100))
    return unit * jnp.sqrt((1 / unit) ** 2 + (x / unit) ** 2)
