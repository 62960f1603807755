"""Soft sort and soft rank, by projection onto the permutahedron or by pairwise comparison.

The projections cost O(n log n) time and O(n) memory, the pairwise forms O(n^2). All sort and rank
in ascending order: soft_sort(x)[..., 0] is the smallest score, and it has rank 1. Negate x for
descending order.

The temperature of the projections is relative to the standard deviation of the scores and
independent of n, so one value works for any scale and number of scores. Pairwise temperatures are
in units of x, as elsewhere in this package; multiply by `jnp.std(x, axis=-1, keepdims=True)` for a
relative one.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import require
from jaxgen.smooth.isotonic import isotonic_regression
from jaxgen.smooth.masking import like, masked_scores


def soft_sort(x, *, temperature=0.1, axis=-1, where=None):
    """Projection of the scaled ranks onto the permutahedron of x.

    argmin_v ||v - (1, ..., n) std(x) / (n tau)||^2 over the convex hull of all permutations of x
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = n tau / std(x)). Neighbours in the result
    are at most std(x) / (n tau) apart; larger gaps are reduced to that. The result has the sum
    of x. temperature -> 0 gives sort(x), temperature -> infinity gives mean(x) everywhere.

    Args:
      x: scores, of magnitude below 1e18.
      temperature: > 0, in units of std(x); at 0.1 gaps above 10 std(x) / n are reduced.
      axis: the axis of the n scores.
      where: mask of the entries to include, broadcasts to x; scores of -inf are masked too. The
        result has the valid entries first, then zeros for the masked ones.

    Returns:
      The shape and dtype of x. The gradient is exact, and 0 for masked entries; ties that are
      averaged share it equally.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    x_sorted, _, valid, count = _sorted(x, axis, where)
    n, scale = jnp.maximum(count, 1), _standard_deviation(x_sorted, valid, count)
    places = _places(x_sorted) - 0.5 * n
    z = scale * (places / (n * temperature))
    return like(x, jnp.moveaxis(_project(z, x_sorted, valid), -1, axis))


def soft_rank(x, *, temperature=1.0, axis=-1, where=None):
    """Projection of the scaled scores onto the permutahedron of the ranks.

    argmin_v ||v - n x / (std(x) tau)||^2 over the convex hull of all permutations of (1, ..., n)
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = std(x) tau / n). A score more than
    std(x) tau / n away from its neighbours has its hard rank. Closer scores are pooled: their ranks
    average to the mean rank of the pool and differ by n / (std(x) tau) times the difference of the
    scores. The ranks are invariant to shifts and positive scalings of x, and sum to n (n + 1) / 2.
    temperature -> 0 gives the rank (the mean rank for ties), temperature -> infinity gives
    (n + 1) / 2 everywhere.

    Args:
      x: scores, of magnitude below 1e18.
      temperature: > 0, in units of std(x).
      axis: the axis of the n scores.
      where: mask of the entries to include, broadcasts to x; masked entries and scores of -inf get
        rank 0 and do not count in n.

    Returns:
      The shape of x, in at least f32; ranks from 1 to n.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    x_sorted, order, valid, count = _sorted(x, axis, where)
    n, scale = jnp.maximum(count, 1), _standard_deviation(x_sorted, valid, count)
    mean = jnp.sum(x_sorted, axis=-1, keepdims=True) / n
    z = n * ((x_sorted - mean) / (scale * temperature))
    middle = 0.5 * (n + 1)
    ranks = _project(z, _places(x_sorted) + 1 - middle, valid)
    ranks = jnp.where(valid, ranks + middle, 0)
    ranks = jnp.put_along_axis(jnp.zeros_like(ranks), order, ranks, axis=-1, inplace=False)
    return jnp.moveaxis(ranks, -1, axis)


def soft_permutation(x, *, temperature=1.0, where=None):
    """P_ij = softmax_j(-|sort(x)_i - x_j| / tau): SoftSort.

    Prillo and Eisenschlos 2020 (arXiv 2006.16038), here in ascending order. Rows sum to 1, columns
    need not. P @ x is a soft sort, and P @ y sorts values y by the scores x. temperature -> 0 gives
    the permutation matrix (ties share equally), temperature -> infinity gives 1 / n everywhere.

    Args:
      x: scores, [..., n].
      temperature: > 0, in units of x.
      where: mask of the entries to include, broadcasts to x; masked entries and scores of -inf have
        columns of 0, and as many rows at the end are 0.

    Returns:
      [..., n, n], in the dtype of x.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    x_sorted, _, valid_sorted, _ = _sorted(x, -1, where)
    scores, valid = masked_scores(x, where)
    distance = jnp.abs(x_sorted[..., :, None] - scores[..., None, :])
    both = valid_sorted[..., :, None] & valid[..., None, :]
    logits = jnp.where(both, -distance / temperature, -jnp.inf)
    some = jnp.any(both, axis=-1, keepdims=True)
    return like(x, jnp.where(some, jax.nn.softmax(jnp.where(some, logits, 0), axis=-1), 0))


def pairwise_rank(x, *, temperature=1.0, where=None):
    """r_i = 1 + sum_{j != i} sigmoid((x_i - x_j) / tau).

    The gradient is negligible for scores more than about 5 tau apart. temperature -> 0 gives the
    rank (the mean rank for ties), temperature -> infinity gives (n + 1) / 2 everywhere.

    Args:
      x: scores, [..., n]; takes [..., n, n] memory.
      temperature: > 0, in units of x.
      where: mask of the entries to include, broadcasts to x; masked entries and scores of -inf get
        rank 0.

    Returns:
      [..., n], in at least f32; ranks from 1 to n.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    scores, valid = masked_scores(x, where)
    wins = jax.nn.sigmoid((scores[..., :, None] - scores[..., None, :]) / temperature)
    wins = jnp.where(valid[..., None, :], wins, 0)
    # The sum includes sigmoid(0) = 1/2 for j = i.
    return jnp.where(valid, 0.5 + jnp.sum(wins, axis=-1), 0)


def _sorted(x, axis, where):
    """Returns (sorted x, order, valid, count) along the last axis; masked entries last, as 0."""
    scores, valid = (jnp.moveaxis(a, axis, -1) for a in masked_scores(x, where))
    order = jnp.argsort(lax.stop_gradient(jnp.where(valid, scores, jnp.inf)), axis=-1)
    count = jnp.sum(valid, axis=-1, keepdims=True, dtype=scores.dtype)
    return jnp.take_along_axis(scores, order, axis=-1), order, _places(scores) < count, count


def _places(x):
    return lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)


def _standard_deviation(x, valid, count):
    """Standard deviation of the valid entries of sorted x; 1, without gradient, if all equal."""
    n = jnp.maximum(count, 1)
    centred = jnp.where(valid, x - jnp.sum(x, axis=-1, keepdims=True) / n, 0)
    spread = jnp.max(jnp.where(valid, x - x[..., :1], 0), axis=-1, keepdims=True)
    some = spread > 0
    unit = lax.stop_gradient(jnp.where(some, spread, 1))  # squares of small x would underflow
    variance = jnp.sum((centred / unit) ** 2, axis=-1, keepdims=True) / n
    return jnp.where(some, unit * jnp.sqrt(jnp.where(some, variance, 1)), 1)


def _project(z, w, valid):
    """Projects z onto the convex hull of the permutations of w; both in ascending order.

    v = z - isotonic(z - w), computed as z plus the mean of w - z over each pool. The pools are
    treated as constant, so autodiff gives the exact gradient without a custom rule, and a pool of
    one element returns w exactly, however large z is.
    """
    fit = isotonic_regression(lax.stop_gradient(jnp.where(valid, z - w, jnp.inf)))
    v = jnp.where(valid, z - jnp.where(valid, fit, 0), 0)
    return v + _pool_means(jnp.where(valid, w - v, 0), fit)


def _pool_means(x, fit):
    """Means of x [..., n] over the segments where `fit` is constant."""
    first = jnp.concatenate([jnp.ones_like(fit[..., :1], bool), fit[..., 1:] != fit[..., :-1]], -1)
    pools = (jnp.cumsum(first.reshape(-1)) - 1).astype(jnp.int32)
    total = lambda values: jax.ops.segment_sum(  # noqa: E731
        values.reshape(-1), pools, num_segments=x.size, indices_are_sorted=True
    )
    means = total(x) / jnp.maximum(total(jnp.ones_like(x)), 1)
    return means[pools].reshape(x.shape)
