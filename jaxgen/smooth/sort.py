"""Soft sort and soft rank, by projection on the permutahedron and by pairs.

The projections cost O(n log n) time and O(n) memory, the pairwise forms O(n^2). All of them sort
and rank upwards: soft_sort(x)[..., 0] is the smallest and rank 1 is that of the smallest; negate
x for the other order.

The temperature of the projections is relative to the standard deviation of the scores and does not
depend on n: one value serves scores of every scale and number. Pairwise temperatures are in units
of x, as elsewhere in this package; multiply by `jnp.std(x, axis=-1, keepdims=True)` for a relative
one.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import require
from jaxgen.smooth.isotonic import isotonic_regression
from jaxgen.smooth.masking import like, masked_scores


def soft_sort(x, *, temperature=0.1, axis=-1, where=None):
    """Projection of the ranks, stretched, on the permutahedron of x.

    argmin_v ||v - (1, ..., n) std(x) / (n tau)||^2 over the convex hull of all permutations of x
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = n tau / std(x)). Neighbours in the result
    are at most std(x) / (n tau) apart: wider gaps are closed by averaging. The sum is that of x.
    temperature -> 0 is sort(x), -> infinity is mean(x) everywhere.

    Args:
      x: scores, below 1e18 in size.
      temperature: > 0, in units of std(x); at 0.1 gaps above 10 std(x) / n are closed.
      axis: the axis of the n scores.
      where: entries that count, broadcasts to x; they come first, then as many 0 as are masked. A
        score of -inf is masked too.

    Returns:
      The shape and dtype of x. The gradient is exact, and 0 to masked entries; among ties it is
      shared equally where they are averaged.

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
    """Projection of the scores, stretched, on the permutahedron of the ranks.

    argmin_v ||v - n x / (std(x) tau)||^2 over the convex hull of all permutations of (1, ..., n)
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = std(x) tau / n). Scores further apart
    than std(x) tau / n from their neighbours have their hard rank; closer ones share their ranks,
    at distances n / (std(x) tau) times those of the scores. Shifts and positive factors of x change
    nothing; the sum is n (n + 1) / 2. temperature -> 0 is the rank, with the mean rank for ties,
    -> infinity is (n + 1) / 2 everywhere.

    Args:
      x: scores, below 1e18 in size.
      temperature: > 0, in units of std(x).
      axis: the axis of the n scores.
      where: entries that count, broadcasts to x; the others, and scores of -inf, get rank 0 and are
        not part of n.

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

    Prillo and Eisenschlos 2020 (arXiv 2006.16038), here upwards. Each row sums to 1, the columns
    need not; P @ x is a soft sort, and P sorts whatever belongs to the scores. temperature -> 0 is
    the permutation matrix (ties share), -> infinity is 1 / n everywhere.

    Args:
      x: scores, [..., n].
      temperature: > 0, in units of x.
      where: entries that count, broadcasts to x; the others, and scores of -inf, have columns of 0,
        and as many rows at the end are 0.

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

    The gradient reaches scores within about 5 tau of each other. temperature -> 0 is the rank, with
    the mean rank for ties, -> infinity is (n + 1) / 2 everywhere.

    Args:
      x: scores, [..., n]; [..., n, n] numbers are computed.
      temperature: > 0, in units of x.
      where: entries that count, broadcasts to x; the others, and scores of -inf, get rank 0.

    Returns:
      [..., n], in at least f32; ranks from 1 to n.

    Raises:
      ValueError: temperature <= 0.
    """
    require(above=0, temperature=temperature)
    scores, valid = masked_scores(x, where)
    wins = jax.nn.sigmoid((scores[..., :, None] - scores[..., None, :]) / temperature)
    wins = jnp.where(valid[..., None, :], wins, 0)
    return jnp.where(valid, 0.5 + jnp.sum(wins, axis=-1), 0)  # sigmoid(0) = 1/2 is of i itself


def _sorted(x, axis, where):
    """(x sorted, order, valid, count) along the last axis; masked entries last, and 0."""
    scores, valid = (jnp.moveaxis(a, axis, -1) for a in masked_scores(x, where))
    order = jnp.argsort(lax.stop_gradient(jnp.where(valid, scores, jnp.inf)), axis=-1)
    count = jnp.sum(valid, axis=-1, keepdims=True, dtype=scores.dtype)
    return jnp.take_along_axis(scores, order, axis=-1), order, _places(scores) < count, count


def _places(x):
    return lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)


def _standard_deviation(x, valid, count):
    """Of the valid entries, sorted upwards; 1, without gradient, where they are all equal."""
    n = jnp.maximum(count, 1)
    centred = jnp.where(valid, x - jnp.sum(x, axis=-1, keepdims=True) / n, 0)
    spread = jnp.max(jnp.where(valid, x - x[..., :1], 0), axis=-1, keepdims=True)
    some = spread > 0
    unit = lax.stop_gradient(jnp.where(some, spread, 1))  # the squares of small x would underflow
    variance = jnp.sum((centred / unit) ** 2, axis=-1, keepdims=True) / n
    return jnp.where(some, unit * jnp.sqrt(jnp.where(some, variance, 1)), 1)


def _project(z, w, valid):
    """Closest point to z in the convex hull of the permutations of w; both sorted upwards.

    v = z - isotonic(z - w), written as the mean of w - z over each pool so that the gradient (the
    mean over pools, which are constant) needs no rule of its own, and so that pools of one element
    keep w exactly, however large z.
    """
    fit = isotonic_regression(lax.stop_gradient(jnp.where(valid, z - w, jnp.inf)))
    v = jnp.where(valid, z - jnp.where(valid, fit, 0), 0)
    return v + _pool_means(jnp.where(valid, w - v, 0), fit)


def _pool_means(x, fit):
    """Means of x [..., n] over stretches where `fit` is constant."""
    first = jnp.concatenate([jnp.ones_like(fit[..., :1], bool), fit[..., 1:] != fit[..., :-1]], -1)
    pools = (jnp.cumsum(first.reshape(-1)) - 1).astype(jnp.int32)
    total = lambda values: jax.ops.segment_sum(  # noqa: E731
        values.reshape(-1), pools, num_segments=x.size, indices_are_sorted=True
    )
    means = total(x) / jnp.maximum(total(jnp.ones_like(x)), 1)
    return means[pools].reshape(x.shape)
