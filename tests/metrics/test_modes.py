import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from jaxgen import metrics as m

RING = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
GRID = np.stack(np.meshgrid(*2 * [np.arange(-4.0, 5, 2)]), axis=-1).reshape(-1, 2)


def test_by_hand():
    centers = np.array([[0.0, 0.0], [1.0, 0.0]])
    samples = np.array([[0.2, 0.2], [0.0, 0.31], [0.9, 0.0], [1.0, -0.2], [0.5, 0.0], [0, -0.3]])
    counts, share = m.mode_counts(centers, samples, 0.1)
    np.testing.assert_array_equal(counts, [2, 2])
    assert share == pytest.approx(4 / 6)
    counts, _ = m.mode_counts(centers, samples, 0.25, sigmas=2)
    np.testing.assert_array_equal(counts, [4, 2])  # the tie is the first one's


@pytest.mark.parametrize("centers, sigma", [(RING, 0.01), (GRID, 0.05)], ids=["ring", "grid"])
def test_a_perfect_sampler(centers, sigma):
    rng = np.random.default_rng(0)
    n = 20000
    samples = centers[rng.integers(len(centers), size=n)] + sigma * rng.normal(size=(n, 2))
    counts, share = m.mode_counts(centers, samples, sigma)
    expected = 0.988891  # of two normal coordinates within three sigma: 1 - exp(-9 / 2)
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    assert np.sum(counts) == round(float(share) * n)
    assert m.captured_modes(counts) == len(centers)
    assert m.kl_to_uniform(counts) < 3 * len(centers) / (2 * n)


def test_a_collapsed_sampler():
    counts, share = m.mode_counts(RING, np.repeat(RING[2:3], 50, axis=0), 0.01)
    assert share == 1
    assert m.captured_modes(counts) == 1
    assert m.kl_to_uniform(counts) == pytest.approx(np.log(8), rel=1e-6)


def test_kl_against_scipy_and_its_limits(x64):
    counts = np.random.default_rng(0).integers(0, 4, size=(5, 30)).astype(float)
    expected = [stats.entropy(row, np.ones(30)) for row in counts]
    kl = jax.jit(m.kl_to_uniform)
    np.testing.assert_allclose(kl(counts), expected, rtol=1e-12)
    np.testing.assert_array_equal(m.captured_modes(counts), (counts > 0).sum(axis=1))
    assert m.kl_to_uniform(np.full(7, 3)) == 0
    run = jax.jit(jax.value_and_grad(lambda c: m.kl_to_uniform(c)[0]))
    value, gradient = run(jnp.zeros((1, 7)))
    assert value == pytest.approx(np.log(7))
    assert np.isfinite(gradient).all()


def test_kl_of_nearly_even_counts_keeps_its_digits():
    counts = 1000 + np.random.default_rng(0).integers(-3, 4, size=(50, 100)).astype(np.float32)
    shares = np.longdouble(counts) / np.longdouble(counts).sum(axis=1, keepdims=True)
    expected = np.float64(np.sum(shares * np.log(100 * shares), axis=1))
    assert max(expected) < 1e-5
    np.testing.assert_allclose(jax.jit(m.kl_to_uniform)(counts), expected, rtol=1e-6)


def test_not_a_number():
    """An infinite sample is in no mode; NaN shows, in a sample, a center and a count."""
    run = jax.jit(lambda centers, x: m.mode_counts(centers, x, 0.01))
    counts, share = run(RING, np.array([[np.inf, 0], RING[1], [-np.inf, 0]]))
    np.testing.assert_array_equal(counts, [0, 1, 0, 0, 0, 0, 0, 0])
    assert share == pytest.approx(1 / 3)
    bad = np.where(np.arange(8)[:, None] == 3, np.nan, RING)
    for found in (run(RING, bad[2:5]), run(bad, RING[:3])):
        assert np.isnan(found.counts).all() and np.isnan(found.high_quality)
    for function in (m.kl_to_uniform, m.captured_modes):
        values = jax.jit(function)(jnp.array([[1.0, np.nan], [1.0, 2.0]]))
        np.testing.assert_array_equal(np.isnan(values), [True, False])


def test_bias_of_a_perfect_stacked_sampler():
    labels = np.random.default_rng(0).integers(1000, size=(20, 26000))
    counts = np.stack([np.bincount(row, minlength=1000) for row in labels])
    kl = np.asarray(m.kl_to_uniform(counts), np.float64)
    # 999 / 52000, and the next term of the series, 1000^2 / (12 26000^2).
    assert abs(kl.mean() - 0.0192 - 0.0001) < 4 * kl.std() / np.sqrt(20)
    assert (m.captured_modes(counts) == 1000).all()


def test_kl_gradient_against_differences(x64):
    counts = jnp.asarray(np.random.default_rng(0).uniform(1, 4, 6))
    check_grads(jax.jit(m.kl_to_uniform), (counts,), order=1, modes=["rev"])
