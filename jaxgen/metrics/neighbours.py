"""Fidelity and diversity from balls around the nearest neighbours.

Let R_k(x) be the ball around x whose radius is the distance to x's k-th nearest neighbour in its
own sample, x itself (and no other point that equals it) left out. A point on the rim is inside.
All comparisons are of squared distances from differences, exact for equal points. They take
O((N + M)^2 D) time and O(block (N + M)) memory; the gradient is 0 everywhere.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require
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
    x = at_least_f32(x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"neighbour_radii: x {x.shape}; expected points [N, D]")
    return _radii("neighbour_radii", x, k, block)


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
    real, fake = points("precision_recall", real, fake)
    real_radii = _radii("precision_recall", real, k, block)
    fake_radii = _radii("precision_recall", fake, k, block)

    def share_inside(x, centers, radii):
        return jnp.mean(_map_rows(lambda d: jnp.any(d <= radii), x, centers, block), dtype=x.dtype)

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
    real, fake = points("density_coverage", real, fake)
    radii = _radii("density_coverage", real, k, block)
    inside = _map_rows(lambda d: jnp.sum(d <= radii, dtype=d.dtype), fake, real, block)
    nearest = _map_rows(jnp.min, real, fake, block)
    return DensityCoverage(jnp.mean(inside) / k, jnp.mean(nearest <= radii, dtype=real.dtype))


def _radii(where, x, k, block):
    require(where, least=1, block=block)
    require(where, least=1, most=len(x) - 1, k=k)

    def kth(row):
        i, point = row
        distances = squared_distances(point[None], x)[0]
        others = jnp.where(jnp.arange(len(x)) == i, jnp.inf, distances)
        return -jax.lax.top_k(-others, k)[0][-1]

    return jax.lax.map(kth, (jnp.arange(len(x)), x), batch_size=block)


def _map_rows(function, x, y, block):
    """function of each row of the squared distances from x to y, never holding all of them."""
    return jax.lax.map(
        lambda point: function(squared_distances(point[None], y)[0]), x, batch_size=block
    )
