"""Log-likelihoods log p(x | z) of decoders, one per example: [B], in nats.

They sum over all axes but the first. A mean over pixels would weigh the likelihood down against
the KL term of a VAE.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import at_least_f32, require, require_integer, require_scalar

_LOG_2PI = math.log(2 * math.pi)


def gaussian_log_likelihood(x, mean, log_std):
    """log N(x; mean, std^2) = -sum (((x - mean) / std)^2 + log(2 pi)) / 2 + log std.

    Half the sum of squares, the usual loss, is minus this with log_std = 0, less the constant.

    Args:
      x: [B, ...].
      mean: the shape of x.
      log_std: a number, such as `optimal_log_std(x, mean)`, or an array that broadcasts to x: one
        number per channel, or one per element. A learned one is unbounded below where the decoder
        can be exact; pass `soft_floor(log_std, floor)`.

    Returns:
      [B].

    Raises:
      ValueError: x has no batch axis, mean another shape, or log_std does not broadcast to x.
    """
    x, mean = _pair(x, mean)
    return _sum_example(log_normal(x - mean, expand(x.shape, log_std=log_std)))


def optimal_log_std(x, mean, floor=-6.0):
    """log sqrt(mean (x - mean)^2), the shared deviation that maximizes the likelihood of the batch.

    Rybkin et al. 2021 (sigma-VAE, arXiv 2006.13202). The mean is over all axes: this is
    a statistic of the whole batch. It passes through `soft_floor`, so that it is `floor` where
    the reconstruction is perfect. The gradient there is 0.

    Args:
      x: [B, ...].
      mean: the shape of x.
      floor: least log-deviation, a number. -6 is the paper's code, for x in [0, 1].

    Returns:
      A scalar.

    Raises:
      ValueError: as in `gaussian_log_likelihood`, or floor is not a finite number.
    """
    x, mean = _pair(x, mean)
    square = jnp.mean((x - mean) ** 2)
    perfect = square == 0
    log_std = 0.5 * jnp.log(jnp.where(perfect, 1, square))
    return soft_floor(jnp.where(perfect, -jnp.inf, log_std), floor)


def soft_floor(x, floor):
    """floor + softplus(x - floor) = log(exp(x) + exp(floor)), elementwise.

    Of a log-deviation it adds exp(floor) to the deviation: a lower bound that keeps a gradient
    (`softclip` in the code of sigma-VAE, arXiv 2006.13202).

    Args:
      x: any shape.
      floor: a number.

    Returns:
      The shape of x.

    Raises:
      ValueError: floor is not a finite number.
    """
    require(floor=floor)
    require_scalar(floor=floor)
    return jnp.logaddexp(at_least_f32(x), floor)


def bernoulli_log_likelihood(x, logits):
    """sum x log p + (1 - x) log(1 - p),  p = sigmoid(logits).

    For x strictly between 0 and 1 it is minus the cross-entropy, as common code has it, and no
    density of x.

    Args:
      x: [B, ...], in [0, 1].
      logits: the shape of x.

    Returns:
      [B].

    Raises:
      ValueError: x has no batch axis or is outside [0, 1], or logits has another shape. A traced
        x, as under `jit`, is not checked.
    """
    _require(lambda x: (x >= 0) & (x <= 1), "numbers in [0, 1]", x)
    x, logits = _pair(x, logits, "logits")
    return -_sum_example(x * jax.nn.softplus(-logits) + (1 - x) * jax.nn.softplus(logits))


def discretized_logistic_log_likelihood(x, mean, log_scale, levels: int = 256):
    """Sum of log(F(x + 1/2) - F(x - 1/2)), F the distribution function of a logistic law.

    Salimans et al. 2017, equation 2 with one component (PixelCNN++, arXiv 1701.05517). The lowest
    level takes the whole left tail and the highest the right one, so that the probabilities of all
    levels sum to 1. With a < b the arguments at both edges of a bin,

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)),

    which is accurate in both tails, where the paper's code switches to the density.

    mean and log_scale are in the units of images in [-1, 1]: level k stands at 2 k / (levels - 1)
    - 1, and 2 / (levels - 1) is the width of a bin.

    Args:
      x: integers 0..levels-1, [B, ...], of any dtype.
      mean: the shape of x.
      log_scale: a number, or an array that broadcasts to x. PixelCNN++ clips it at -7; see
        `soft_floor`. Values and gradients are finite for |log_scale| up to 80.
      levels: number of values a pixel can take, >= 2.

    Returns:
      [B], a proper log-probability: `flows.bits_per_dim` applies without any other term.

    Raises:
      ValueError: as in `gaussian_log_likelihood`, or x has other values than 0..levels-1 (a
        traced x is not checked), or levels is not an integer >= 2.
    """
    require_integer(least=2, levels=levels)
    _require(lambda x: np.isin(x, np.arange(levels)), f"0, 1, .. {levels - 1}", x)
    x, mean = _pair(x, mean)
    log_scale = expand(x.shape, log_scale=log_scale)
    error = (2 * x / (levels - 1) - 1 - mean) * jnp.exp(-log_scale)
    half = jnp.exp(-log_scale) / (levels - 1)
    first, last = x == 0, x == levels - 1
    above = jnp.where(first, 0, jax.nn.log_sigmoid(half - error))
    below = jnp.where(last, 0, jax.nn.log_sigmoid(half + error))
    width = jnp.where(first | last, 0, jnp.log(-jnp.expm1(-2 * half)))
    return _sum_example(above + below + width)


def log_normal(error, log_std):
    """log N(error; 0, std^2), elementwise; both arguments have one shape."""
    return -0.5 * ((error * jnp.exp(-log_std)) ** 2 + _LOG_2PI) - log_std


def expand(shape, **named):
    """The named argument in at least f32, broadcast to the shape; anything larger is refused."""
    ((name, value),) = named.items()
    value = at_least_f32(value)
    tail = shape[len(shape) - value.ndim :] if value.ndim <= len(shape) else None
    if tail is None or any(a not in (1, b) for a, b in zip(value.shape, tail, strict=True)):
        raise ValueError(f"{name} {value.shape}; expected what broadcasts to {shape}")
    return jnp.broadcast_to(value, shape)


def _pair(x, other, name="mean"):
    x, other = at_least_f32(x), at_least_f32(other)
    if x.shape != other.shape or not x.ndim:
        raise ValueError(f"x {x.shape}, {name} {other.shape}; expected equal shapes [B, ...]")
    dtype = jnp.promote_types(x.dtype, other.dtype)  # integers may meet f64
    return x.astype(dtype), other.astype(dtype)


def _require(valid, expected, x):
    """Refuses a known x with values other than those; NaN passes, and comes out as NaN."""
    if isinstance(x, jax.core.Tracer):
        return
    x = np.asarray(x, np.float64)
    if not np.all(valid(x) | np.isnan(x)):
        raise ValueError(f"x of {x.min():g} to {x.max():g}; expected {expected}")


def _sum_example(x):
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))
