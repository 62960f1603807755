"""Clusters against classes by hand, and K-means on points that have clusters."""

import numpy as np
import pytest

from experiments.methods.clusters import METRICS, judged, kmeans


def test_judged_by_hand():
    clusters, labels = np.array([0, 0, 0, 1, 1, 2, 4, -1]), np.array([1, 1, 0, 0, 0, 0, 2, 1])
    found = judged(clusters, labels, 5, 3)
    assert found.keys() == METRICS.keys()
    assert found["purity"] == pytest.approx(6 / 7)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert found["used_clusters"] == 4
    assert judged(labels, (labels + 1) % 3, 3, 3) == pytest.approx(
        {"purity": 1, "accuracy": 1, "nmi": 1, "ari": 1, "used_clusters": 3}
    )


def test_constant_clusters():
    labels = np.arange(40) % 4
    assert judged(np.zeros(40, int), labels, 10, 4) == pytest.approx(
        {"purity": 0.25, "accuracy": 0.25, "nmi": 0, "ari": 0, "used_clusters": 1}
    )


def test_kmeans_finds_clusters_and_sees_no_test_point():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    images = np.eye(4)[labels].reshape(400, 2, 2) + 0.1 * rng.normal(size=(400, 2, 2))
    clusters = kmeans(images[:300], images[300:], 3, seed=0)
    assert judged(clusters, labels[300:], 3, 3)["accuracy"] == 1
    alone = kmeans(images[:300], images[300:301], 3, seed=0)
    assert alone == clusters[:1]
