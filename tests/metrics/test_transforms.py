"""Every public function that jits, under every transformation and dtype."""

import jax
import numpy as np
import pytest

from jaxgen import metrics as m


def points(rng):
    return rng.normal(size=(6, 2)), rng.normal(size=(5, 2))


def images(rng):
    return tuple(rng.uniform(0.1, 0.9, size=(2, 1, 8, 8, 1)))


def similarities(x, y):
    return m.ssim(x, y, low=0, high=1), m.ms_ssim(x, y, low=0, high=1, weights=(0.4, 0.6))


def sliced(seed, x, y):
    return m.pyramid_sliced_wasserstein(
        jax.random.key(seed), x, y, levels=1, patches=2, projections=3, repeats=2
    )


def clusters(rng):
    """Partitions, and a table of whole numbers as floats, which f32, bf16 and f64 all hold."""
    return rng.integers(-1, 4, size=(3, 12)), rng.integers(0, 9, size=(4, 3)).astype(float)


def judged(partitions, table):
    return (
        m.contingency(partitions[0], partitions[1], 4, 3),
        m.agreement(partitions, 4) * table[0, 0],
        m.purity(table),
        m.hungarian_accuracy(table),
        m.normalized_mutual_information(table),
        m.adjusted_rand_index(table),
        m.used_clusters(table, 0.1),
    )


# Functions of the same arguments share a case: a case compiles some ten programs.
CASES = {
    "sums": (["feature_sums"], m.feature_sums, lambda rng: (points(rng)[0], rng.normal(size=2))),
    "kernel": (
        ["kernel_distance"],
        lambda seed, x, y: m.kernel_distance(jax.random.key(seed), x, y, subsets=2, size=2),
        lambda rng: (rng.integers(9), *points(rng)),
    ),
    "neighbours": (
        ["neighbour_radii", "precision_recall", "density_coverage", "knn_votes"],
        lambda x, y: (
            m.neighbour_radii(x, 2, block=4),
            m.precision_recall(x, y, k=2, block=4),
            m.density_coverage(x, y, k=2, block=4),
            m.knn_votes(x, np.arange(6) % 2, y, k=3, num_classes=2, block=4),
        ),
        points,
    ),
    "clustering": (
        [
            "adjusted_rand_index",
            "agreement",
            "contingency",
            "hungarian_accuracy",
            "normalized_mutual_information",
            "purity",
            "used_clusters",
        ],
        judged,
        clusters,
    ),
    "modes": (
        ["mode_counts", "captured_modes", "kl_to_uniform"],
        lambda x, y: (
            m.mode_counts(x, y, 0.4),
            m.captured_modes(abs(x)),
            m.kl_to_uniform(abs(x)),
        ),
        points,
    ),
    "similarity": (["ssim", "ms_ssim"], similarities, images),
    "pyramid": (
        ["laplacian_pyramid", "pyramid_sliced_wasserstein"],
        lambda seed, x, y: (m.laplacian_pyramid(x, 2), sliced(seed, x, y)),
        lambda rng: (rng.integers(9), *images(rng)),
    ),
}
RECORDS = {
    "DensityCoverage",
    "FeatureSums",
    "GaussianFit",
    "KernelDistance",
    "ModeCounts",
    "PrecisionRecall",
}
HOST = {"frechet_distance", "gaussian_fit"}  # float64 numpy


def test_every_public_function_has_a_case():
    covered = {name for names, _, _ in CASES.values() for name in names}
    assert covered | RECORDS | HOST == set(m.__all__)


@pytest.mark.parametrize("case", CASES)
def test_works_everywhere(case, works_everywhere):
    _, function, draw = CASES[case]
    works_everywhere(function, draw)


@pytest.mark.parametrize("case", CASES)
def test_nan_is_shown(case, shows_nan):
    shows_nan(dict.fromkeys([case], CASES[case][1]), CASES[case][2])


@pytest.mark.parametrize("case", CASES)
def test_integers_count_as_floats(case, counts_integers):
    counts_integers(dict.fromkeys([case], CASES[case][1]), CASES[case][2])
