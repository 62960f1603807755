"""Fidelity and diversity from balls around the nearest neighbours.

Let R_k(x) be the ball around x whose radius is the distance to x's k-th nearest neighbour in its
own sample, x itself (and no other point that equals it) left out. A point on the rim is inside.
All comparisons are of squared distances from differences, exact for equal points. They take
O((N + M)^2 (D + k)) time and O(block (N + M)) memory; the gradient of a share is 0 everywhere.
A feature that is NaN or infinite makes every number NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require
from jaxgen.divergences import squared_distances
from jaxgen.metrics.shapes import points


class PrecisionRecall(NamedTuple):
    """Attributes: precision (fidelity) and recall (diversity), scalars in [0, 1]."""

    precision: jax.Array
    recall: jax.Array


class DensityCoverage(NamedTuple):
    """Attributes: density (fidelity), a scalar in [0, N / k]; coverage (diversity), in [0, 1]."""

    density: jax.Array
    coverage: jax.Array


def neighbour_radii(x, k: int, *, block: int = 256):
    """Squared distance from each point to its k-th nearest other point.

    Args:
      x: [N, D].
      k: 1 <= k <= N - 1. A point that occurs more than k times has radius 0.
      block: rows of the distance matrix that are held at once.

    Returns:
      [N], squared, in at least f32.

    Raises:
      ValueError: k or block out of range, or not points.
    """
    (x,) = points(x=x)
    return _nan_unless_finite(_radii(x, k, block), x)


def precision_recall(real, fake, *, k: int = 3, block: int = 256) -> PrecisionRecall:
    """Precision: share of fakes in some R_k(real); recall: share of reals in some R_k(fake).

    Kynkaanniemi et al. 2019 (arXiv 1904.06991, equations 1 and 2). Swapping the arguments swaps
    the two numbers: real comes first.

    Traps: one far outlier among the reals has a ball that forgives many fakes (`density_coverage`
    does not); equal laws score well below 1, more so in high dimension, so report real against
    real at the same N and M; recall rises with M.

    Args:
      real: [N, D] features.
      fake: [M, D].
      k: neighbour that sets the radius, >= 1, below N and M; the paper's 3.
      block: rows of the distance matrix that are held at once.

    Returns:
      PrecisionRecall.

    Raises:
      ValueError: k or block out of range, or not points of one dimension.
    """
    real, fake = points(real=real, fake=fake)
    real_radii = _radii(real, k, block)
    fake_radii = _radii(fake, k, block)

    def share_inside(x, centers, radii):
        inside = _map_rows(lambda d: jnp.any(d <= radii), centers, block, x)
        return _nan_unless_finite(jnp.mean(inside, dtype=x.dtype), real, fake)

    return PrecisionRecall(
        share_inside(fake, real, real_radii), share_inside(real, fake, fake_radii)
    )


def density_coverage(real, fake, *, k: int = 5, block: int = 256) -> DensityCoverage:
    """Density: mean over fakes of #{i: fake in R_k(real_i)} / k; coverage: share of full balls.

    Naeem et al. 2020 (arXiv 2002.09797, equations 3 and 4). A ball is full when a fake is in it.
    Only balls around reals are used, so outliers among the fakes do no harm, and the balls can be
    kept. For equal continuous laws, whatever they are:
    E density = 1 and E coverage = 1 - C(N - 1, k) / C(N + M - 1, k), which for large N = M is
    1 - 2^-k: 0.9688 at k = 5, 0.875 at k = 3.

    Traps: density may be above 1 (fakes huddled where reals are dense); it is not symmetric.

    Args:
      real: [N, D] features.
      fake: [M, D].
      k: neighbour that sets the radius, 1 <= k <= N - 1; the paper's 5.
      block: rows of the distance matrix that are held at once.

    Returns:
      DensityCoverage.

    Raises:
      ValueError: k or block out of range, or not points of one dimension.
    """
    real, fake = points(real=real, fake=fake)
    radii = _radii(real, k, block)
    # Fakes in each ball: one pass over the distances gives both numbers.
    inside = _map_rows(lambda d, r: jnp.sum(d <= r, dtype=d.dtype), fake, block, real, radii)
    density = jnp.sum(inside) / (k * len(fake))
    coverage = jnp.mean(inside > 0, dtype=inside.dtype)
    return DensityCoverage(*(_nan_unless_finite(x, real, fake) for x in (density, coverage)))


def _radii(x, k, block):
    require(least=1, block=block)
    require(least=1, most=len(x) - 1, k=k)

    def kth(distances, i):
        return _kth_smallest(jnp.where(jnp.arange(len(x)) == i, jnp.inf, distances), k)

    return _map_rows(kth, x, block, x, jnp.arange(len(x)))


def _kth_smallest(values, k):
    """From the least up, step by step to the next; `top_k` sorts, 50 times slower on a CPU."""

    def up(_, reached):
        following = jnp.min(jnp.where(values > reached, values, jnp.inf))
        return jnp.where(jnp.sum(values <= reached) < k, following, reached)

    return jax.lax.fori_loop(0, k - 1, up, jnp.min(values))


def _map_rows(function, y, block, x, *others):
    """function(squared distances from x_i to y, *others_i) for each i, a block of them at once."""

    def of_row(row):
        return function(squared_distances(row[0][None], y)[0], *row[1:])

    return jax.lax.map(of_row, (x, *others), batch_size=block)


def _nan_unless_finite(value, *samples):
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in samples]))
    return jnp.where(finite, value, jnp.nan)
