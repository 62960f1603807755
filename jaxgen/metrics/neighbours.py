"""Fidelity and diversity from k-nearest-neighbour balls.

R_k(x) is the closed ball around x whose radius is the distance to the k-th nearest neighbour of x
in its own sample; x itself is excluded, duplicates of x are not. Squared distances are computed
from differences, so they are exact for equal points. Time is O((N + M)^2 (D + k)), memory
O(block (N + M)). The gradients are 0 everywhere. A NaN or infinite feature makes every result NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require, require_integer
from jaxgen.divergences import squared_distances
from jaxgen.metrics.shapes import nan_unless_finite, points


class PrecisionRecall(NamedTuple):
    """Precision (fidelity) and recall (diversity), scalars in [0, 1]."""

    precision: jax.Array
    recall: jax.Array


class DensityCoverage(NamedTuple):
    """Density (fidelity), a scalar in [0, N / k], and coverage (diversity), a scalar in [0, 1]."""

    density: jax.Array
    coverage: jax.Array


def neighbour_radii(x, k: int, *, block: int = 256):
    """Squared distance from each point to its k-th nearest other point.

    Args:
      x: [N, D].
      k: 1 <= k <= N - 1. A point that occurs more than k times has radius 0.
      block: rows of the distance matrix to hold in memory at once.

    Returns:
      [N], squared distances, in at least f32.

    Raises:
      ValueError: k or block is out of range, or x is not [N, D].
    """
    (x,) = points(x=x)
    return nan_unless_finite(_radii(x, k, block), x)


def precision_recall(real, fake, *, k: int = 3, block: int = 256) -> PrecisionRecall:
    """Precision: fraction of fakes in some R_k(real); recall: fraction of reals in some R_k(fake).

    Kynkaanniemi et al. 2019 (arXiv 1904.06991, equations 1 and 2). Swapping the arguments swaps
    the two numbers: real comes first.

    Caveats: an outlier among the reals has a large ball that accepts many fakes
    (`density_coverage` is more robust). Equal distributions score well below 1, more so in high
    dimension, so report real against real at the same N and M. Recall rises with M.

    Args:
      real: [N, D] features.
      fake: [M, D].
      k: neighbour that sets the radius, 1 <= k < min(N, M); 3 in the paper.
      block: rows of the distance matrix to hold in memory at once.

    Returns:
      PrecisionRecall.

    Raises:
      ValueError: k or block is out of range, or inputs are not [N, D] and [M, D].
    """
    real, fake = points(real=real, fake=fake)
    real_radii = _radii(real, k, block)
    fake_radii = _radii(fake, k, block)

    def share_inside(x, centers, radii):
        inside = _map_rows(lambda d: jnp.any(d <= radii), centers, block, x)
        return nan_unless_finite(jnp.mean(inside, dtype=x.dtype), real, fake)

    return PrecisionRecall(
        share_inside(fake, real, real_radii), share_inside(real, fake, fake_radii)
    )


def density_coverage(real, fake, *, k: int = 5, block: int = 256) -> DensityCoverage:
    """Density: mean over fakes of #{i: fake in R_k(real_i)} / k; coverage: share of hit balls.

    Naeem et al. 2020 (arXiv 2002.09797, equations 3 and 4). A ball R_k(real_i) is hit if a fake is
    in it. Only balls around reals are used, so outliers among the fakes do not inflate the result.
    For any two equal continuous distributions, E density = 1 and
    E coverage = 1 - C(N - 1, k) / C(N + M - 1, k), which for large N = M is 1 - 2^-k: 0.9688 at
    k = 5, 0.875 at k = 3.

    Caveats: density exceeds 1 if fakes concentrate where reals are dense. It is not symmetric.

    Args:
      real: [N, D] features.
      fake: [M, D].
      k: neighbour that sets the radius, 1 <= k <= N - 1; 5 in the paper.
      block: rows of the distance matrix to hold in memory at once.

    Returns:
      DensityCoverage.

    Raises:
      ValueError: k or block is out of range, or inputs are not [N, D] and [M, D].
    """
    real, fake = points(real=real, fake=fake)
    radii = _radii(real, k, block)
    # The number of fakes in each ball gives both results in one pass over the distances.
    inside = _map_rows(lambda d, r: jnp.sum(d <= r, dtype=d.dtype), fake, block, real, radii)
    density = jnp.sum(inside) / (k * len(fake))
    coverage = jnp.mean(inside > 0, dtype=inside.dtype)
    return DensityCoverage(*(nan_unless_finite(x, real, fake) for x in (density, coverage)))


def _radii(x, k, block):
    require_integer(least=1, block=block, k=k)
    require(most=len(x) - 1, k=k)

    def kth(distances, i):
        return _kth_smallest(jnp.where(jnp.arange(len(x)) == i, jnp.inf, distances), k)

    return _map_rows(kth, x, block, x, jnp.arange(len(x)))


def _kth_smallest(values, k):
    """k-th smallest value by k - 1 passes from the minimum; `top_k` is 50 times slower on a CPU."""

    def up(_, reached):
        following = jnp.min(jnp.where(values > reached, values, jnp.inf))
        return jnp.where(jnp.sum(values <= reached) < k, following, reached)

    return jax.lax.fori_loop(0, k - 1, up, jnp.min(values))


def _map_rows(function, y, block, x, *others):
    """Maps function(squared distances from x_i to y, *others_i) over i, `block` rows at a time."""

    def of_row(row):
        return function(squared_distances(row[0][None], y)[0], *row[1:])

    return jax.lax.map(of_row, (x, *others), batch_size=block)
