"""Agreement of clusters with classes, from one table of counts [K, C].

Tables of batches add up to the table of all examples. A table without examples gives 0 everywhere;
NaN in is NaN out. Integer tables are used as f32, so counts are exact up to 2^24, and have a
relative rounding of 6e-8 above.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_integer, require_scalar
from jaxgen.divergences import kl_divergence


def contingency(clusters, labels, num_clusters: int, num_labels: int):
    """n_kc = #{i: clusters_i = k, labels_i = c}.

    An example whose cluster or label is out of range, such as -1 for padding, is not counted.

    Args:
      clusters: [N], integers 0 ... K - 1.
      labels: [N], integers 0 ... C - 1.
      num_clusters: K >= 1; it may exceed N.
      num_labels: C >= 1.

    Returns:
      [K, C], int32.

    Raises:
      ValueError: the shapes differ, or an argument is not an integer.
    """
    require_integer(least=1, num_clusters=num_clusters, num_labels=num_labels)
    clusters, labels = _integers(1, "[N]", clusters=clusters, labels=labels)
    if clusters.shape != labels.shape:
        raise ValueError(f"labels {labels.shape}; expected the shape of clusters {clusters.shape}")
    inside = (clusters >= 0) & (clusters < num_clusters) & (labels >= 0) & (labels < num_labels)
    empty = jnp.zeros((num_clusters, num_labels), jnp.int32)
    return empty.at[clusters, labels].add(inside.astype(jnp.int32))


def purity(table):
    """sum_k max_c n_kc / N: accuracy if each cluster is named after its largest class.

    Many-to-one, so it grows with K: it is 1 where every example has a cluster of its own, and at
    least the share of the largest class.

    Args:
      table: [K, C] >= 0, from `contingency`.

    Returns:
      A scalar in [0, 1], in at least f32.

    Raises:
      ValueError: table is not [K, C], or a count is negative, NaN or infinite.
    """
    table = _table(table)
    return _over(jnp.sum(jnp.max(table, axis=1)), jnp.sum(table))


def hungarian_accuracy(table):
    """max_m sum_k n_{k m(k)} / N over one-to-one maps m of clusters to classes.

    The "ACC" of Xie et al. 2016 (arXiv 1511.06335, equation 10). If K > C, the examples of K - C
    clusters count as errors; if K < C, those of C - K classes do. It is at most the purity.

    Arguments, result and errors as in `purity`.
    """
    table = _table(table)
    wide = table if len(table) <= table.shape[1] else table.T
    owner = _assignment(jax.lax.stop_gradient(wide))
    hits = jnp.where(owner < 0, 0, wide[owner, jnp.arange(len(owner))])
    return _over(jnp.sum(hits), jnp.sum(table))


def _arithmetic_mean(x, y):
    return (x + y) / 2


def normalized_mutual_information(table, mean: Callable = _arithmetic_mean):
    """NMI = I(U; V) / mean(H(U), H(V)) of clusters U and classes V.

    Strehl and Ghosh 2002, Journal of Machine Learning Research 3 (geometric mean). The default is
    scikit-learn's. It is not adjusted for chance: random clusters score above 0, more so for large
    K. Entropies come from sums of terms >= 0, so small ones keep their digits.

    Args:
      table: [K, C] >= 0, from `contingency`.
      mean: (H(U), H(V)) -> a scalar, `jnp.maximum` for example. Papers differ in it.

    Returns:
      A scalar in [0, 1], in at least f32; 1 if all examples have one cluster and one class, 0 if
      only one of the two is constant.

    Raises:
      ValueError: table is not [K, C], or a count is negative, NaN or infinite.
    """
    table = _table(table)
    total = jnp.sum(table)
    total = jnp.where(total == 0, 1, total)
    clusters, labels = jnp.sum(table, axis=1), jnp.sum(table, axis=0)
    independent = (clusters / total)[:, None] * (labels / total)[None, :]
    information = kl_divergence((table / total).ravel(), independent.ravel())
    entropies = _entropy(clusters, total), _entropy(labels, total)
    scale = mean(*entropies)
    constant = (entropies[0] + entropies[1] == 0) & jnp.any(table > 0)
    ratio = jnp.where(constant, 1, _over(information, scale))
    return jnp.where(ratio > 1, 1, ratio)  # rounding


def adjusted_rand_index(table):
    """ARI = (R - E R) / (max R - E R), R the share of pairs that clusters and classes agree on.

    Hubert and Arabie 1985, Journal of Classification 2. With the numbers of pairs that are together
    in both (tp), in the clusters only (fp), in the classes only (fn) and in neither (tn):
    ARI = 2 (tp tn - fp fn) / ((tp + fn) (fn + tn) + (tp + fp) (fp + tn)). Each number is a sum of
    products >= 0 of counts, divided by N. So nothing cancels or overflows, and the result is right
    to about 1e-6 in f32 for any N.

    Args:
      table: [K, C] of counts, from `contingency`.

    Returns:
      A scalar in [-0.5, 1], in at least f32; its mean is 0 for random clusters of given sizes, and
      it is 1 where the two partitions are equal, constant ones included.

    Raises:
      ValueError: table is not [K, C], or a count is negative, NaN or infinite.
    """
    table = _table(table)
    total = jnp.sum(table)
    shares = _over(table, total)
    clusters, labels = jnp.sum(table, axis=1)[:, None], jnp.sum(table, axis=0)[None, :]
    tp = jnp.sum(shares * (table - 1))
    fp = jnp.sum(shares * (clusters - table))
    fn = jnp.sum(shares * (labels - table))
    tn = jnp.sum(shares * (total - clusters - (labels - table)))
    index = _over(2 * (tp * tn - fp * fn), (tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))
    return jnp.where((fp + fn == 0) & (total > 0), 1, index)


def used_clusters(table, share=0.0):
    """#{k: sum_c n_kc > share N}: the clusters that hold more than a share of the examples.

    Args:
      table: [K, C] >= 0, from `contingency`.
      share: in [0, 1], a scalar; 0 counts every cluster with an example.

    Returns:
      A scalar in 0 ... K, in at least f32.

    Raises:
      ValueError: table is not [K, C], a count is negative, NaN or infinite, or share is not a
        number in [0, 1].
    """
    require(least=0, most=1, share=share)
    require_scalar(share=share)
    table = _table(table)
    clusters, total = jnp.sum(table, axis=1), jnp.sum(table)
    used = jnp.sum(clusters > share * total, dtype=table.dtype)
    return jnp.where(jnp.isnan(total), total, used)


def agreement(partitions, num_clusters: int):
    """a_s = mean over t != s of NMI(partition s, partition t).

    It chooses among runs without labels: the run that agrees most with the others. It needs no
    common space or order of clusters. Runs that collapse in the same way agree with each other, so
    read it with `used_clusters`.

    Args:
      partitions: [S, N], S >= 2, integers 0 ... num_clusters - 1; others are not counted.
      num_clusters: the largest number of clusters of a partition.

    Returns:
      [S], in [0, 1], f32.

    Raises:
      ValueError: partitions are not integers [S, N] with S >= 2, or num_clusters < 1.
    """
    (partitions,) = _integers(2, "[S, N] with S >= 2", partitions=partitions)
    require(least=2, partitions=len(partitions))

    def similarity(one, other):
        table = contingency(one, other, num_clusters, num_clusters)
        return normalized_mutual_information(table)

    def to_all(one):
        return jax.vmap(similarity, in_axes=(None, 0))(one, partitions)

    # One row of pairs at a time: memory is O(S N).
    pairs = jax.lax.map(to_all, partitions)
    others = ~jnp.eye(len(pairs), dtype=bool)
    return jnp.mean(pairs, axis=1, where=others)


def _assignment(gains):
    """The row that each column gets, or -1, for the largest sum: [R, C], R <= C -> [C].

    Successive shortest paths (Hungarian method): rows come one by one, and each moves earlier rows
    along the best chain of columns, which Bellman and Ford's recursion finds. Loops are bounded,
    and their states come from `gains`: `optax.assignment` does not trace under `shard_map`.
    """
    rows = len(gains)
    free = jnp.zeros_like(gains[0], dtype=int) - 1

    def add_row(row, owner):
        own = gains[owner]  # [C, C], of the row that holds each column
        moves = jnp.where(owner < 0, -jnp.inf, 0)[:, None] + own - jnp.diagonal(own)[:, None]

        def lengthen(_, state):
            best, before = state
            through = best[:, None] + moves
            longer = jnp.max(through, axis=0)
            before = jnp.where(longer > best, jnp.argmax(through, axis=0), before)
            return jnp.maximum(best, longer), before

        best, before = jax.lax.fori_loop(0, rows, lengthen, (gains[row], free))

        def move(_, state):
            owner, column = state
            mover = jnp.where(before[column] < 0, row, owner[before[column]])
            moved = owner.at[column].set(mover)
            return jnp.where(column < 0, owner, moved), jnp.where(column < 0, -1, before[column])

        last = jnp.argmax(jnp.where(owner < 0, best, -jnp.inf))
        return jax.lax.fori_loop(0, rows, move, (owner, last))[0]

    return jax.lax.fori_loop(0, rows, add_row, free)


def _entropy(counts, total):
    """H = sum p log(1 / p) as sum p log(1 + (N - n) / n): exact differences, no cancellation."""
    none = counts == 0
    counts = jnp.where(none, 1, counts)
    return jnp.sum(jnp.where(none, 0, counts / total * jnp.log1p((total - counts) / counts)))


def _over(x, y):
    """x / y, and 0 where y is 0."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))


def _table(table):
    table = at_least_f32(table)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"table {table.shape}; expected counts [K, C]")
    require(least=0, table=table)
    return table


def _integers(axes, expected, **arrays):
    arrays = {name: jnp.asarray(x) for name, x in arrays.items()}
    for name, x in arrays.items():
        if x.ndim != axes or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} {x.dtype}{list(x.shape)}; expected integers {expected}")
    return tuple(arrays.values())
