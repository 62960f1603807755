"""Mode coverage of a mixture: counts per mode, sample quality, and divergence from uniform."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar
from jaxgen.divergences import kl_divergence, squared_distances
from jaxgen.metrics.shapes import points


class ModeCounts(NamedTuple):
    """Counts of high-quality samples, in at least f32.

    Attributes:
      counts: [K], number of high-quality samples nearest to each mode.
      high_quality: fraction of samples that are of high quality, a scalar.
    """

    counts: jax.Array
    high_quality: jax.Array


def mode_counts(centers, samples, sigma, *, sigmas=3.0) -> ModeCounts:
    """Counts per mode of the samples within `sigmas` standard deviations of their nearest mode.

    As in VEEGAN (Srivastava et al. 2017, arXiv 1705.07761) and PacGAN (Lin et al. 2017, arXiv
    1712.04086). The distance is Euclidean, so a perfect sampler of two-dimensional modes scores
    1 - exp(-sigmas^2 / 2) = 0.9889 at sigmas = 3, not 1. Ties go to the first mode; an infinite
    sample belongs to no mode. A NaN makes every result NaN.

    Args:
      centers: [K, D], means of the mixture.
      samples: [N, D].
      sigma: > 0, standard deviation of a mode in each dimension.
      sigmas: > 0, radius of a mode in standard deviations.

    Returns:
      ModeCounts; no gradient.

    Raises:
      ValueError: sigma or sigmas <= 0, or inputs are not [K, D] and [N, D].
    """
    require(above=0, sigma=sigma, sigmas=sigmas)
    require_scalar(sigma=sigma, sigmas=sigmas)
    centers, samples = points(centers=centers, samples=samples)
    squared = squared_distances(samples, centers)
    good = jnp.min(squared, axis=1) <= (jnp.asarray(sigma, squared.dtype) * sigmas) ** 2
    nearest = jnp.argmin(squared, axis=1)
    counts = jnp.zeros(len(centers), squared.dtype).at[nearest].add(good.astype(squared.dtype))
    result = ModeCounts(counts, jnp.mean(good, dtype=squared.dtype))
    bad = jnp.any(jnp.isnan(samples)) | jnp.any(jnp.isnan(centers))
    return ModeCounts(*(jnp.where(bad, jnp.nan, x) for x in result))


def captured_modes(counts):
    """Number of modes (or classes) with at least one sample.

    It grows with the number of samples, so report that number; 26,000 is usual for stacked MNIST.

    Args:
      counts: [..., K] >= 0, from `mode_counts` or, for a classifier's labels,
        `jnp.bincount(labels, length=K)`.

    Returns:
      [...], in at least f32.

    Raises:
      ValueError: counts is a scalar, or a count is negative, NaN or infinite.
    """
    counts = _counts(counts)
    captured = jnp.where(jnp.isnan(counts), counts, (counts > 0).astype(counts.dtype))
    return jnp.sum(captured, axis=-1)


def kl_to_uniform(counts):
    """KL(p || uniform) = sum_k p_k log(K p_k), p = counts / sum(counts), in nats.

    The "reverse KL" of the PacGAN tables. It is biased upwards: N draws from the uniform
    distribution give about (K - 1) / (2 N), which is 0.0192 for 1,000 classes and 26,000 samples.
    If the real classes are not uniform, their own divergence is added.

    Args:
      counts: [..., K] >= 0.

    Returns:
      [...], in [0, log K] up to rounding, in at least f32; log K (the maximum) where all counts are
      0.

    Raises:
      ValueError: counts is a scalar, or a count is negative, NaN or infinite.
    """
    counts = _counts(counts)
    total = jnp.sum(counts, axis=-1, keepdims=True)
    none = total == 0
    total = jnp.where(none, 1, total)
    # Of K counts against their total, which are exact where counts / total and 1 / K are rounded.
    masses = kl_divergence(counts * counts.shape[-1], jnp.broadcast_to(total, counts.shape))
    kl = masses / (total[..., 0] * counts.shape[-1])
    return jnp.where(none[..., 0], jnp.log(jnp.asarray(counts.shape[-1], kl.dtype)), kl)


def _counts(counts):
    counts = at_least_f32(counts)
    if counts.ndim == 0 or counts.shape[-1] == 0:
        raise ValueError(f"counts {counts.shape}; expected [..., K]")
    require(least=0, counts=counts)
    return counts
