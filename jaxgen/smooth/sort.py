"""Soft sort and soft rank, by projection onto the permutahedron or by pairwise comparison.

The projections cost O(n log n) time and O(n) memory, the pairwise forms O(n^2). All sort and rank
in ascending order: soft_sort(x)[..., 0] is the smallest score, and it has rank 1. Negate x for
descending order.

The temperature of the projections is in units of `scale` and independent of n. By default `scale`
is the standard deviation of the scores, so one value works for any scale and number of scores. One
outlier increases the standard deviation and so brings the others together; `scale=1.0` gives an
absolute temperature, and another measure of spread, [..., 1], one that resists outliers.

Pairwise temperatures are in units of x, as elsewhere in this package; multiply by
`jnp.std(x, axis=-1, keepdims=True)` for a relative one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.arguments import require
from jaxgen.smooth.isotonic import isotonic_regression, kl_isotonic_regression
from jaxgen.smooth.masking import axis_last, like, log_softmax, masked_scores
from jaxgen.smooth.order import run_starts, sort_with_places, sum_runs, take


def soft_sort(x, *, temperature=0.1, scale=None, axis=-1, where=None):
    """Projection of the scaled ranks onto the permutahedron of x.

    argmin_v ||v - (1, ..., n) scale / (n tau)||^2 over the convex hull of all permutations of x
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = n tau / scale). Neighbours in the result
    are at most scale / (n tau) apart; larger gaps are reduced to that. The result has the sum of x.
    temperature -> 0 gives sort(x), temperature -> infinity gives mean(x) everywhere.

    Args:
      x: scores; magnitudes above 2^120 count as 2^120.
      temperature: > 0, in units of `scale`; at 0.1 gaps above 10 scale / n are reduced.
      scale: > 0, in units of x; None for std(x).
      axis: the axis of the n scores.
      where: mask of the entries to include, broadcasts to x; scores of -inf are masked too. The
        result has the valid entries first, then zeros for the masked ones.

    Returns:
      The shape and dtype of x. The gradient is exact, and 0 for masked entries; equal scores share
      it equally.

    Raises:
      ValueError: temperature <= 0 or scale <= 0.
    """
    s = _scores(x, temperature, scale, axis, where)
    z = s.scale * (s.position / (s.n * s.temperature))
    pools = _pools(isotonic_regression(_inside(s, z - (s.sorted - s.centre))), s.position)
    first = lax.stop_gradient(s.sorted.reshape(-1)[pools.start])
    mean = first + sum_runs(s.sorted - first, pools.start)[pools.start] / pools.size
    step = s.scale / (s.n * s.temperature)
    v = mean + step * (s.position - pools.first - 0.5 * (pools.size - 1))
    return like(x, jnp.moveaxis(jnp.where(s.inside, v, 0), -1, axis))


def soft_rank(x, *, temperature=1.0, scale=None, axis=-1, where=None):
    """Projection of the scaled scores onto the permutahedron of the ranks.

    argmin_v ||v - n x / (scale tau)||^2 over the convex hull of all permutations of (1, ..., n)
    (Blondel et al. 2020, arXiv 2002.08871, with epsilon = scale tau / n). A score more than
    scale tau / n away from its neighbours has its hard rank. Closer scores are pooled: their ranks
    average to the mean rank of the pool and differ by n / (scale tau) times the difference of the
    scores. The ranks are invariant to shifts of x, with the default `scale` also to positive
    scalings, and sum to n (n + 1) / 2. temperature -> 0 gives the rank (the mean rank for ties),
    temperature -> infinity gives (n + 1) / 2 everywhere.

    Args:
      x: scores; magnitudes above 2^120 count as 2^120.
      temperature: > 0, in units of `scale`.
      scale: > 0, in units of x; None for std(x).
      axis: the axis of the n scores.
      where: mask of the entries to include, broadcasts to x; masked entries and scores of -inf get
        rank 0 and do not count in n.

    Returns:
      The shape of x, in at least f32; ranks from 1 to n.

    Raises:
      ValueError: temperature <= 0 or scale <= 0.
    """
    s = _scores(x, temperature, scale, axis, where)
    fit = isotonic_regression(_inside(s, _stretched(s) - s.position))
    pools = _pools(fit, s.position, s.places)
    lowest, highest = pools.first + 1, pools.first + pools.size
    # Relative to the first of the pool: the mean of equal numbers is rounded.
    gap = s.x - lax.stop_gradient(s.sorted.reshape(-1)[pools.start])
    gap = gap - sum_runs(gap, pools.start)[pools.start] / pools.size
    rank = 0.5 * (lowest + highest) + s.n * (gap / s.scale / s.temperature)
    # A pool of scores that are not told apart by rounding must not leave its places.
    rank = jnp.where(rank < lowest, lowest, jnp.where(rank > highest, highest, rank))
    return jnp.moveaxis(jnp.where(s.valid, rank, 0), -1, axis)


def soft_sort_kl(x, *, temperature=0.1, scale=None, axis=-1, where=None):
    """`soft_sort` with the Kullback-Leibler divergence in place of the squared distance.

    scale log(v), with v the closest point to e^z, z = (1, ..., n) / (n tau), in the sense of
    sum v log(v / e^z) - v, in the convex hull of all permutations of e^(x / scale) (Blondel et al.
    2020, arXiv 2002.08871, section 3; epsilon = n tau for scale = 1). Neighbours in the result are
    at most scale / (n tau) apart. The result has the sum of e^(x / scale), so it follows the
    largest scores more than `soft_sort` does. temperature -> 0 gives sort(x), temperature ->
    infinity gives scale log mean e^(x / scale) everywhere.
    Arguments, result and errors as for `soft_sort`.
    """
    s = _scores(x, temperature, scale, axis, where)
    step = 1 / (s.n * s.temperature)
    w = lax.stop_gradient(jnp.where(s.inside, (s.sorted - s.centre) / s.scale, 0))
    fit = kl_isotonic_regression(_inside(s, s.position * step), w)
    pools = _pools(fit, s.position)
    last = lax.stop_gradient(s.sorted.reshape(-1)[pools.start + pools.size.astype(int) - 1])
    below = step * (s.position - pools.first - (pools.size - 1))
    pooled = lambda logits: sum_runs(jnp.exp(logits), pools.start)[pools.start]  # noqa: E731
    log_ratio = jnp.log(pooled((s.sorted - last) / s.scale)) - jnp.log(pooled(below))
    v = last + s.scale * (log_ratio + below)
    return like(x, jnp.moveaxis(jnp.where(s.inside, v, 0), -1, axis))


def soft_rank_kl(x, *, temperature=1.0, scale=None, axis=-1, where=None):
    """`soft_rank` with the Kullback-Leibler divergence in place of the squared distance.

    The closest point v to e^z, z = n x / (scale tau), in the sense of sum v log(v / e^z) - v, in
    the convex hull of all permutations of (1, ..., n) (Blondel et al. 2020, arXiv 2002.08871,
    section 3, where it is exp P_E(z, log(1, ..., n))). In a pool the ranks are the sum of its hard
    ranks times softmax(z), so they are positive and sum to n (n + 1) / 2. Scores are pooled where
    the ratio of e^z is less than that of the ranks: low ranks more than high ones. The limits are
    those of `soft_rank`. Arguments, result and errors as for `soft_rank`.
    """
    s = _scores(x, temperature, scale, axis, where)
    fit = kl_isotonic_regression(_inside(s, _stretched(s)), jnp.log(s.position + 1))
    pools = _pools(fit, s.position, s.places)
    last = lax.stop_gradient(s.sorted.reshape(-1)[pools.start + pools.size.astype(int) - 1])
    weights = jnp.exp(s.n * ((s.x - last) / s.scale / s.temperature))
    total = pools.size * (pools.first + 0.5 * (pools.size + 1))
    rank = total * (weights / sum_runs(weights, pools.start)[pools.start])
    return jnp.moveaxis(jnp.where(s.valid, rank, 0), -1, axis)


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
    scores, valid, x_sorted, inside, _ = _sorted(x, -1, where)
    change = x_sorted[..., 1:] != x_sorted[..., :-1]
    edge = jnp.ones_like(inside[..., :1])
    ends = [jnp.concatenate(pair, axis=-1) for pair in ((edge, change), (change, edge))]
    first, last = (end.astype(scores.dtype)[..., None] for end in ends)
    gap = scores[..., None, :] - x_sorted[..., :, None]
    # |gap|. Moving one of several equal scores moves it away from all places but the first and the
    # last, in either direction, so that the slope is 0 there.
    slope = jnp.where(gap == 0, first - last, jnp.sign(lax.stop_gradient(gap)))
    both = inside[..., :, None] & valid[..., None, :]
    p = jnp.exp(log_softmax(-slope * gap, both, temperature, -1)[0])
    return like(x, p)


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


class _Scores(NamedTuple):
    """Scores along the last axis, as given and sorted; invalid ones last, as 0."""

    x: jax.Array
    valid: jax.Array
    sorted: jax.Array
    inside: jax.Array  # the valid ones of `sorted`
    places: jax.Array  # of x in `sorted`
    position: jax.Array  # 0, ..., of the entries of `sorted`, a float
    n: jax.Array  # number of valid scores, at least 1
    centre: jax.Array  # the middle one of `sorted`, a constant
    scale: jax.Array
    temperature: jax.Array


class _Pools(NamedTuple):
    """The pools that scores belong to."""

    start: jax.Array  # of the pool in the flattened array
    first: jax.Array  # position of the pool's first score in its row, a float
    size: jax.Array  # number of scores, a float


def _scores(x, temperature, scale, axis, where):
    require(above=0, temperature=temperature)
    if scale is not None:
        require(above=0, scale=scale)
    x, valid, x_sorted, inside, places = _sorted(x, axis, where)
    n = jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True, dtype=x.dtype), 1)
    middle = jnp.broadcast_to((n.astype(jnp.int32) - 1) // 2, places.shape)
    centre = lax.stop_gradient(take(x_sorted, middle)[..., :1])
    position = lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)
    (temperature,) = axis_last(axis, temperature)
    if scale is None:
        scale = _standard_deviation(jnp.where(valid, x - centre, 0), valid, n)
    else:
        (scale,) = axis_last(axis, scale)
    return _Scores(x, valid, x_sorted, inside, places, position, n, centre, scale, temperature)


def _sorted(x, axis, where):
    """(x, mask of the valid ones, x sorted, mask of these, places of x), axis last."""
    x, valid = axis_last(axis, *masked_scores(x, where))
    limit = 2.0**120  # differences must not overflow, nor one over them underflow
    x = jnp.where(x > limit, limit, jnp.where(x < -limit, -limit, x))
    # One NaN makes all of its row NaN, in value and gradient.
    poison = jnp.where(jnp.any(jnp.isnan(x), axis=-1, keepdims=True), jnp.nan, 1).astype(x.dtype)
    x_sorted, places = sort_with_places(x, valid)
    inside = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1) < jnp.sum(
        valid, axis=-1, keepdims=True
    )
    x = jnp.where(valid, x * poison, 0)
    return x, valid, jnp.where(inside, x_sorted * poison, 0), inside, places


def _standard_deviation(x, valid, n):
    """Standard deviation of the valid x; 1, without gradient, if all are 0."""
    unit = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0))
    some = unit > 0
    unit = jnp.where(some, unit, 1)  # squares would overflow and underflow
    x = x / unit
    x = jnp.where(valid, x - jnp.sum(x, axis=-1, keepdims=True) / n, 0)
    variance = jnp.sum(x**2, axis=-1, keepdims=True) / n
    return jnp.where(some, unit * jnp.sqrt(jnp.where(some, variance, 1)), 1)


def _stretched(s):
    return s.n * ((s.sorted - s.centre) / s.scale / s.temperature)


def _inside(s, values):
    return lax.stop_gradient(jnp.where(s.inside, values, jnp.inf))


def _pools(fit, position, places=None):
    """Pools from an isotonic fit of the sorted scores; of those at `places`, else of the sorted."""
    start = run_starts(fit)
    size = sum_runs(jnp.ones_like(fit), start)
    start = start if places is None else take(start, places)
    return _Pools(start, position.reshape(-1)[start], size[start])
