"""Clusters against classes: scikit-learn and scipy on random partitions, and the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as sklearn

from jaxgen import metrics as m

CONSTANT, ONE_OUT = np.zeros(1000, int), np.eye(1, 1000, dtype=int)[0]


@jax.jit
def judged(table):
    return {
        "purity": m.purity(table),
        "accuracy": m.hungarian_accuracy(table),
        "nmi": m.normalized_mutual_information(table),
        "ari": m.adjusted_rand_index(table),
        "used": m.used_clusters(table),
    }


@jax.jit
def geometric(table):
    return m.normalized_mutual_information(table, lambda u, v: jnp.sqrt(u * v))


def table_of(clusters, labels, num_clusters=None, num_labels=None):
    sizes = num_clusters or 1 + max(clusters), num_labels or 1 + max(labels)
    return m.contingency(clusters, labels, *map(int, sizes))


def expected_of(clusters, labels):
    counts = sklearn.cluster.contingency_matrix(clusters, labels)
    rows, columns = linear_sum_assignment(-counts)
    return {
        "purity": counts.max(axis=1).sum() / len(labels),
        "accuracy": counts[rows, columns].sum() / len(labels),
        "nmi": sklearn.normalized_mutual_info_score(labels, clusters),
        "ari": sklearn.adjusted_rand_score(labels, clusters),
        "used": len(np.unique(clusters)),
    }


def partitions(rng, size, num_clusters, num_labels, noise):
    """Clusters that follow the labels, but for a share of noise."""
    labels = rng.integers(num_labels, size=size)
    random = rng.integers(num_clusters, size=size)
    return np.where(rng.uniform(size=size) < noise, random, labels % num_clusters), labels


@pytest.mark.parametrize(
    "num_clusters, num_labels, wide",
    [(7, 7, False), (12, 5, False), (4, 9, False), (1, 5, False), (5, 1, False), (12, 5, True)],
)
def test_against_scikit_learn(num_clusters, num_labels, wide):
    rng = np.random.default_rng(0)
    with jax.enable_x64(wide):
        for size, noise in [(30, 0.1), (300, 0.5), (300, 1.0), (70_000, 0.01), (70_000, 1.0)]:
            clusters, labels = partitions(rng, size, num_clusters, num_labels, noise)
            table = table_of(clusters, labels, num_clusters, num_labels)
            expected = expected_of(clusters, labels)
            found = judged(table.astype(float))
            tolerance = 1e-12 if wide else 2e-6
            assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
            assert all(0 <= found[name] <= 1 for name in ("purity", "accuracy", "nmi"))


def test_more_clusters_than_examples():
    clusters, labels = np.array([40, 3, 3, 77]), np.array([1, 0, 0, 0])
    found = judged(table_of(clusters, labels, 100, 3))
    assert found == pytest.approx(expected_of(clusters, labels), rel=1e-6)
    assert (found["purity"], found["accuracy"], found["used"]) == (1, 0.75, 3)


def test_the_means_of_entropies():
    table = table_of([0, 0, 1, 1], [0, 1, 2, 3])
    for mean, expected in [
        (None, 2 / 3),
        (lambda u, v: jnp.sqrt(u * v), 0.5**0.5),
        (jnp.maximum, 0.5),
        (jnp.minimum, 1.0),
    ]:
        found = m.normalized_mutual_information(table, *([mean] if mean else []))
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "clusters, labels, nmi, ari",
    [
        (CONSTANT, CONSTANT, 1, 1),
        (ONE_OUT, CONSTANT, 0, 0),
        (CONSTANT, ONE_OUT, 0, 0),
        (ONE_OUT, 1 - ONE_OUT, 1, 1),
        (np.arange(9), np.arange(9)[::-1], 1, 1),
        ([0], [0], 1, 1),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0, -0.5),
    ],
)
def test_degenerate_partitions(clusters, labels, nmi, ari):
    table = table_of(clusters, labels, 9, 9)
    found = judged(table)
    assert found["nmi"] == pytest.approx(nmi, abs=1e-6)
    assert found["ari"] == pytest.approx(ari, abs=1e-6)
    assert geometric(table) == pytest.approx(nmi, abs=1e-6)


def test_the_best_map_among_many():
    """Tables without structure, where good maps need long chains of exchanges."""
    tables = np.random.default_rng(0).integers(0, 30, size=(40, 9, 9))
    for shape in ((9, 9), (9, 7)):
        cut = tables[:, : shape[0], : shape[1]]
        found = jax.jit(jax.vmap(m.hungarian_accuracy))(cut)
        best = [table[linear_sum_assignment(-table)].sum() / table.sum() for table in cut]
        np.testing.assert_allclose(found, best, rtol=1e-6)


def test_equal_partitions_score_one_and_never_more():
    sizes = np.random.default_rng(0).integers(0, 999, size=(200, 9))
    tables = sizes[:, :, None] * np.eye(9, dtype=int)[:, [*range(1, 9), 0]]
    found = np.asarray(jax.jit(jax.vmap(m.normalized_mutual_information))(tables))
    np.testing.assert_allclose(found, 1, rtol=1e-6)
    assert found.max() == 1


def test_a_table_without_examples_gives_zero_and_nan_shows():
    assert set(map(float, judged(jnp.zeros((3, 4))).values())) == {0.0}
    found = judged(jnp.ones((3, 4)).at[1, 2].set(jnp.nan))
    assert np.isnan(list(found.values())).all()


def test_small_dependence_keeps_its_digits():
    """In f32, where entropies of nearly constant partitions and their information are tiny."""
    table = np.array([[69_980, 9], [10, 1]])
    shares = table / 70_000
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    information = np.sum(shares * np.log(shares / (rows[:, None] * columns)))
    entropies = [-np.sum(x * np.log(x)) for x in (rows, columns)]
    found = m.normalized_mutual_information(table)
    assert found == pytest.approx(2 * information / sum(entropies), rel=3e-6)
    clusters, labels = (np.repeat(x, table.ravel()) for x in ([0, 0, 1, 1], [0, 1, 0, 1]))
    expected = sklearn.adjusted_rand_score(labels, clusters)
    assert m.adjusted_rand_index(table) == pytest.approx(expected, rel=3e-6)


def test_billions_of_examples_neither_overflow_nor_cancel():
    table = np.array([[9, 1, 0], [2, 8, 3], [0, 0, 5]])
    pairs = 1e8 * table  # in the limit of many examples a pair is two draws with replacement
    rows, columns = pairs.sum(axis=1), pairs.sum(axis=0)
    same, total = (pairs**2).sum(), pairs.sum() ** 2
    chance = (rows**2).sum() * (columns**2).sum() / total
    expected = (same - chance) / (((rows**2).sum() + (columns**2).sum()) / 2 - chance)
    found = m.adjusted_rand_index(table * 10**8)
    assert found == pytest.approx(expected, rel=1e-6)


def test_tables_add_up_and_what_is_out_of_range_does_not_count():
    clusters = np.array([0, 2, -1, 1, 3, 2], np.int8)
    labels = np.array([1, 0, 0, -1, 0, 2])
    table = m.contingency(clusters, labels, 3, 2)
    assert table.dtype == jnp.int32
    np.testing.assert_array_equal(table, [[0, 1], [0, 0], [1, 0]])
    halves = [m.contingency(clusters[i::2], labels[i::2], 3, 2) for i in (0, 1)]
    np.testing.assert_array_equal(halves[0] + halves[1], table)


def test_used_clusters_hold_more_than_a_share():
    table = np.array([[50, 20], [0, 0], [10, 0], [1, 19]])
    for share, expected in [(0, 3), (0.1, 2), (0.2, 1), (1, 0)]:
        assert m.used_clusters(table, share) == expected


def test_agreement_is_the_mean_over_the_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=200)
    partitions = np.stack(
        [labels, 3 - labels, rng.integers(4, size=200), np.where(np.arange(200) < 50, 0, labels)]
    )
    scores = [[sklearn.normalized_mutual_info_score(a, b) for b in partitions] for a in partitions]
    expected = (np.sum(scores, axis=1) - 1) / 3
    found = jax.jit(m.agreement, static_argnums=1)(partitions, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected.argmin() == 2
