from math import comb

import jax
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial import distance

from jaxgen import metrics as m


def brute(real, fake, k):
    """Every number by its definition."""

    def radii(x):
        table = distance.cdist(x, x)
        return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(table)])

    cross = distance.cdist(real, fake)
    in_real, in_fake = cross <= radii(real)[:, None], cross <= radii(fake)[None, :]
    return {
        "precision": in_real.any(axis=0).mean(),
        "recall": in_fake.any(axis=1).mean(),
        "density": in_real.sum(axis=0).mean() / k,
        "coverage": in_real.any(axis=1).mean(),
    }


def found(real, fake, k, **options):
    pair = m.precision_recall(real, fake, k=k, **options)
    other = m.density_coverage(real, fake, k=k, **options)
    return {name: float(x) for name, x in (pair._asdict() | other._asdict()).items()}


def draw(n=40, k=30, d=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), 0.7 + 0.8 * rng.normal(size=(k, d))


@pytest.mark.parametrize("k", [1, 3, 29])
@pytest.mark.parametrize("block", [1, 7, 256])
def test_against_brute_force(k, block, x64):
    real, fake = draw()
    assert found(real, fake, k, block=block) == pytest.approx(brute(real, fake, k), rel=1e-12)


def test_radii_against_brute_force_and_the_point_itself_does_not_count(x64):
    x = np.array([[0.0], [1.0], [3.0], [3.0], [10.0]])
    np.testing.assert_array_equal(m.neighbour_radii(x, 1), [1, 1, 0, 0, 49])
    np.testing.assert_array_equal(m.neighbour_radii(x, 2, block=2), [9, 4, 4, 4, 49])


def test_real_comes_first():
    """Fakes huddle in a corner of the reals: all of them are right, and most reals are missed."""
    real = np.random.default_rng(0).uniform(size=(300, 2))
    fake = np.random.default_rng(1).uniform(0.4, 0.5, size=(300, 2))
    precision, recall = m.precision_recall(real, fake)
    density, coverage = m.density_coverage(real, fake)
    assert precision == 1
    assert recall < 0.1
    assert coverage < 0.1
    assert density > 0.7
    np.testing.assert_array_equal(m.precision_recall(fake, real), (recall, precision))


def test_an_outlier_among_the_reals_fools_precision_and_not_density():
    real = np.concatenate([np.random.default_rng(0).normal(size=(100, 2)), [[20.0, 20.0]]])
    fake = 12 + np.random.default_rng(1).normal(size=(100, 2))
    assert m.precision_recall(real, fake, k=5).precision > 0.9
    density, coverage = m.density_coverage(real, fake, k=5)
    assert density < 0.3
    assert coverage <= 1.5 / 101


def test_copies_of_the_reals_score_one_even_with_ties():
    real = np.repeat(np.random.default_rng(0).integers(0, 9, (25, 2)), 4, axis=0).astype(float)
    assert (m.neighbour_radii(real, 3) == 0).all()
    np.testing.assert_array_equal(m.precision_recall(real, real), (1, 1))
    density, coverage = m.density_coverage(real, real, k=3)
    assert coverage == 1
    assert density >= 4 / 3


@pytest.mark.parametrize("size, dimensions", [(300, 37), (257, 64)])
def test_a_point_on_the_rim_is_inside_whatever_the_rounding(size, dimensions):
    """Copies in f32: each ball holds its center and k others, the last of them on the rim."""
    real = np.random.default_rng(0).normal(size=(size, dimensions)).astype(np.float32)
    density, coverage = m.density_coverage(real, real[::-1], k=3)
    assert density == pytest.approx(4 / 3, rel=1e-6)
    assert coverage == 1


def test_equal_points_far_from_the_origin_stay_equal():
    real = (1e4 + np.random.default_rng(0).normal(size=(50, 8))).astype(np.float32)
    radii = m.neighbour_radii(np.concatenate([real, real]), 1)
    np.testing.assert_array_equal(radii, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number(bad):
    x, y = draw()
    y[3, 1] = bad
    for pair in ((x, y), (y, x)):
        assert np.isnan(list(found(*pair, 3).values())).all()
    assert np.isnan(m.neighbour_radii(y, 3)).all()


def test_gradient_of_a_radius(x64):
    x = draw()[0]
    check_grads(lambda x: m.neighbour_radii(x, 4, block=7), (x,), order=1, modes=["rev"])


@pytest.mark.parametrize("k, limit", [(3, 0.8750), (5, 0.9688)])
def test_expectations_for_equal_laws(k, limit):
    """Whatever the law is; over 60 draws of 200 against 200, and of 200 against 100."""
    rng = np.random.default_rng(0)
    run = jax.jit(jax.vmap(lambda x, y: m.density_coverage(x, y, k=k)))
    x = rng.normal(size=(60, 200, 3)).astype(np.float32) ** 3
    for size in (200, 100):
        y = rng.normal(size=(60, size, 3)).astype(np.float32) ** 3
        density, coverage = (np.asarray(z, np.float64) for z in run(x, y))
        expected = 1 - comb(199, k) / comb(199 + size, k)
        if size == 200:
            assert expected == pytest.approx(limit, abs=2e-3)
        for values, mean in ((density, 1), (coverage, expected)):
            assert abs(values.mean() - mean) < 3.5 * values.std(ddof=1) / np.sqrt(60)


def test_invariant_under_motion_scale_and_order(x64):
    real, fake = draw()
    expected = found(real, fake, 3)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert found(7 * real @ turn - 5, 7 * fake @ turn - 5, 3) == pytest.approx(expected)
    assert found(real[::-1], fake[::-1], 3) == pytest.approx(expected)


@pytest.mark.parametrize("function", [m.precision_recall, m.density_coverage])
def test_memory_is_that_of_a_block_of_rows(function):
    x = jax.ShapeDtypeStruct((4000, 16), np.float32)
    run = jax.jit(lambda x, y: function(x, y, block=32))
    memory = run.lower(x, x).compile().memory_analysis()
    # A few blocks of 32 rows, for the sorts; the matrix of distances would be 64 MB.
    assert memory.temp_size_in_bytes < 4000 * 4000 * 4 / 16
