"""Votes of the nearest neighbours against scikit-learn, and their ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxgen import metrics as m


def draw(size=60, queries=23, dimensions=5, classes=4):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=size)
    centers = rng.normal(size=(classes, dimensions))
    features = centers[labels] + rng.normal(size=(size, dimensions))
    return features, labels, rng.normal(size=(queries, dimensions))


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("block", [4, 64])
def test_against_scikit_learn(k, block):
    features, labels, queries = draw()
    expected = KNeighborsClassifier(k).fit(features, labels).predict_proba(queries)
    votes = m.knn_votes(features, labels, queries, k, 4, block=block)
    np.testing.assert_allclose(votes, k * expected, atol=1e-6)


def test_features_far_from_the_origin_lose_few_digits():
    features, labels, queries = draw()
    votes = m.knn_votes(features + 1000, labels, queries + 1000, 5, 4)
    np.testing.assert_array_equal(votes, m.knn_votes(features, labels, queries, 5, 4))


def test_cosines_order_normalised_features():
    features, labels, queries = draw()
    unit, aim = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, queries))
    nearest = np.argsort(-(aim @ unit.T), axis=1)[:, :5]
    expected = np.stack([np.bincount(labels[row], minlength=4) for row in nearest])
    np.testing.assert_array_equal(m.knn_votes(unit, labels, aim, 5, 4), expected)


def test_ties_go_to_the_first_and_unknown_labels_vote_for_none():
    features = jnp.array([[0.0], [2.0], [2.0], [0.0]])
    labels = np.array([1, 0, 2, -1])
    for k, expected in [(1, [0, 1, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [1, 1, 1])]:
        np.testing.assert_array_equal(m.knn_votes(features, labels, [[1.0]], k, 3), [expected])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 2])
def test_not_a_number(bad, where):
    arguments = list(draw())
    arguments[where][3, 1] = bad
    assert np.isnan(m.knn_votes(*arguments, 3, 4)).all()


def test_memory_is_that_of_a_block_of_queries():
    x, labels = (
        jax.ShapeDtypeStruct((4000, 16), np.float32),
        jax.ShapeDtypeStruct((4000,), np.int32),
    )
    run = jax.jit(lambda x, labels, y: m.knn_votes(x, labels, y, 5, 10, block=32))
    memory = run.lower(x, labels, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4000 * 4000 * 4 / 16
