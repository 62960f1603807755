"""Frechet distance between Gaussians fitted to features, from sums over batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import at_least_f32, require_integer


class FeatureSums(NamedTuple):
    """Sufficient statistics of a Gaussian relative to a shift s; additive over batches.

    Attributes:
      examples: number of examples, a scalar.
      total: sum of x - s, [D].
      products: sum of (x - s) (x - s)^T, [D, D].
    """

    examples: jax.Array
    total: jax.Array
    products: jax.Array


class GaussianFit(NamedTuple):
    """A Gaussian in float64, on the host.

    Attributes:
      mean: [D], mean of the features.
      covariance: [D, D].
    """

    mean: np.ndarray
    covariance: np.ndarray


def feature_sums(features, shift, where=None) -> FeatureSums:
    """Count, sum and sum of outer products of features - shift over a batch.

    Combine batches with `jax.tree.map(jnp.add, a, b)` and devices with `jax.lax.psum`. The rounding
    error of the covariance is about eps |mean - shift|^2, so use the mean of the first batch as the
    shift of all batches, or 0 for features of about unit scale. Over many batches, accumulate the
    sums on the host in float64. Products are in full f32 (not TF32).

    Args:
      features: [N, D], from any extractor.
      shift: [D], near the mean; the same for all batches and for `gaussian_fit`.
      where: [N] bool, mask of the examples to include (for a padded last batch); all by default.

    Returns:
      FeatureSums, in at least f32.

    Raises:
      ValueError: the shapes do not match.
    """
    x, shift = at_least_f32(features), at_least_f32(shift)
    if x.ndim != 2:
        raise ValueError(f"features {x.shape}; expected [N, D]")
    if shift.shape != x.shape[1:]:
        raise ValueError(f"shift {shift.shape}; expected [D] for features {x.shape}")
    kept = jnp.ones(len(x), bool) if where is None else jnp.asarray(where).astype(bool)
    if kept.shape != x.shape[:1]:
        raise ValueError(f"where {kept.shape}; expected [N] for features {x.shape}")
    x = jnp.where(kept[:, None], x - shift[None, :], 0)
    products = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)
    return FeatureSums(jnp.sum(kept, dtype=x.dtype), jnp.sum(x, axis=0), products)


def gaussian_fit(sums: FeatureSums, shift, *, min_examples: int | None = None) -> GaussianFit:
    """Mean and unbiased covariance (divisor N - 1) from the sums over all batches.

    Uses float64 numpy on the host, so it cannot be jitted. The fit of the real data can be saved
    and reused.

    Args:
      sums: sums of N examples.
      shift: [D], the shift passed to `feature_sums`.
      min_examples: the fewest examples to accept, >= 2; D + 1 by default, as with fewer the
        covariance is always singular. `frechet_distance` is defined for singular ones, too.

    Returns:
      GaussianFit.

    Raises:
      ValueError: too few examples, non-finite sums, or a shift of the wrong shape.
    """
    shift = np.asarray(at_least_f32(shift), np.float64)  # rounded as in `feature_sums`
    count, total, products = (np.asarray(x, np.float64) for x in sums)
    if min_examples is None:
        min_examples = len(total) + 1
    require_integer(least=2, min_examples=min_examples)
    if not (np.isfinite(total).all() and np.isfinite(products).all()):
        raise ValueError("sums with NaN or infinity; expected finite features")
    if not count >= min_examples:
        raise ValueError(
            f"sums of {count:g} examples; expected at least {min_examples} for {len(total)} "
            "features (min_examples)"
        )
    if shift.shape != total.shape:
        raise ValueError(f"shift {shift.shape}; expected [D] as for the sums {total.shape}")
    mean = total / count
    return GaussianFit(shift + mean, (products - count * np.outer(mean, mean)) / (count - 1))


def frechet_distance(real: GaussianFit, fake: GaussianFit) -> float:
    """|m_r - m_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)): squared Wasserstein-2 of two Gaussians.

    Dowson and Landau 1982, Journal of Multivariate Analysis 12; Heusel et al. 2017 (arXiv
    1706.08500, equation 6). The trace of the root is computed as the sum of the singular values of
    S_r^(1/2) S_f^(1/2), which are the square roots of the eigenvalues of S_r S_f. This avoids
    `sqrtm` and its complex rounding errors. Symmetric; 0 iff the fits are equal. If one covariance
    is singular, or both in different directions, the result is accurate to 8 digits.

    Uses float64 numpy on the host, so it cannot be jitted; for gradients use
    `divergences.gaussian_squared_wasserstein_full`.

    Caveats: it is FID only for the pool features of the 2015 Inception network with its own
    preprocessing, so state the features. It is biased upwards at finite N, more so for large D:
    compare at equal N and report real against real. It depends only on the first two moments.

    Args:
      real: fit of the real features.
      fake: fit of the generated features.

    Returns:
      a float >= 0, in squared units of the features; NaN if a fit has NaN or infinity.

    Raises:
      ValueError: the shapes of the two fits do not match.
    """
    for name, fit in (("real", real), ("fake", fake)):
        shapes = np.shape(fit.mean), np.shape(fit.covariance)
        if shapes != (np.shape(real.mean), 2 * np.shape(real.mean)) or len(shapes[0]) != 1:
            raise ValueError(f"{name} {shapes}; expected [D] and [D, D], one D for both fits")
    if not all(np.isfinite(x).all() for fit in (real, fake) for x in fit):
        return float("nan")
    gap = np.asarray(real.mean, np.float64) - np.asarray(fake.mean, np.float64)
    roots = np.linalg.svd(_root(real.covariance) @ _root(fake.covariance), compute_uv=False)
    traces = np.trace(real.covariance) + np.trace(fake.covariance) - 2 * roots.sum()
    # Negative only by rounding.
    return float(gap @ gap + max(traces, 0.0))


def _root(covariance):
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
