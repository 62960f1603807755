import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from jaxgen import divergences
from jaxgen import metrics as m


def fit(x, shift=None):
    shift = np.zeros(x.shape[1]) if shift is None else shift
    return m.gaussian_fit(m.feature_sums(x, shift), shift)


def by_sqrtm(x, y):
    s, t = np.cov(x.T), np.cov(y.T)
    gap = x.mean(axis=0) - y.mean(axis=0)
    return gap @ gap + np.trace(s + t - 2 * np.real(linalg.sqrtm(s @ t)))


def samples(n=60, d=5):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(2, d, d))
    return rng.normal(size=(n, d)) @ mix[0], 0.5 + rng.normal(size=(n + 9, d)) @ mix[1]


def test_two_dimensional_example_with_singular_covariances():
    # Means (1.5, 1) and (5.5, 9): 80. Variances a = 25 / 99 and 49 a along the first axis: 36 a.
    real, fake = np.ones((100, 2)), np.full((100, 2), 9.0)
    real[:50, 0] = 2
    fake[50:, 0] = 2
    distance = m.frechet_distance(fit(real), fit(fake))
    assert isinstance(distance, float)
    assert distance == pytest.approx(80 + 36 * 25 / 99, abs=1e-4)
    assert distance == pytest.approx(89.0909, abs=1e-4)


def test_against_sqrtm(x64):
    x, y = samples()
    expected = by_sqrtm(x, y)
    assert m.frechet_distance(fit(x), fit(y)) == pytest.approx(expected, rel=1e-9)
    assert m.frechet_distance(fit(y), fit(x)) == pytest.approx(expected, rel=1e-9)


def test_against_the_differentiable_form(x64):
    (a, s), (b, t) = map(fit, samples())
    expected = divergences.gaussian_squared_wasserstein_full(a, s, b, t)
    assert m.frechet_distance((fit_a := m.GaussianFit(a, s)), m.GaussianFit(b, t)) == pytest.approx(
        float(expected), rel=1e-8
    )
    assert m.frechet_distance(fit_a, fit_a) == pytest.approx(0, abs=1e-12)


def test_invariances(x64):
    x, y = samples()
    expected = m.frechet_distance(fit(x), fit(y))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    moved = m.frechet_distance(fit(x @ turn + 3), fit(y @ turn + 3))
    assert moved == pytest.approx(expected, rel=1e-9)
    assert m.frechet_distance(fit(2 * x), fit(2 * y)) == pytest.approx(4 * expected, rel=1e-9)


def test_no_root_of_a_rounding_error():
    """Equal laws of rank 1 in 50 dimensions: roots of eigenvalues of the product lose 8 digits."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=50)
    covariance = np.outer(line, line)
    law = m.GaussianFit(np.zeros(50), covariance)
    assert m.frechet_distance(law, law) <= 1e-12 * np.trace(covariance)


def test_singular_covariances_in_different_directions():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(50, 50)))[0]
    first, second = turn[:, :25], turn[:, 25:]
    real = m.GaussianFit(np.zeros(50), 7 * first @ first.T)
    fake = m.GaussianFit(np.zeros(50), 3 * second @ second.T)
    assert m.frechet_distance(real, fake) == pytest.approx(25 * 10, rel=1e-7)
    assert m.frechet_distance(
        real, m.GaussianFit(np.ones(50), 0 * real.covariance)
    ) == pytest.approx(50 + 25 * 7)


def test_sums_of_batches_add_up_and_are_those_of_the_whole(x64):
    x, _ = samples()
    shift = x[:7].mean(axis=0)
    parts = [m.feature_sums(part, shift) for part in (x[:20], x[20:23], x[23:])]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    mean, covariance = m.gaussian_fit(total, shift)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x.T), rtol=1e-12, atol=1e-12)
    assert mean.dtype == covariance.dtype == np.float64


def test_padding_does_not_count(x64):
    x, _ = samples()
    padded = np.concatenate([x, np.full((4, 5), np.nan)])
    kept = np.arange(len(padded)) < len(x)
    whole, masked = m.feature_sums(x, x[0]), m.feature_sums(padded, x[0], kept)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), whole, masked)


def test_shift_keeps_the_covariance_of_far_features_in_f32():
    x = samples()[0] + 1e4
    x = x.astype(np.float32)
    near = fit(x, x[:5].mean(axis=0)).covariance
    np.testing.assert_allclose(near, np.cov(np.float64(x).T), rtol=1e-5, atol=1e-5)
    # What the shift is for: without it nothing is left.
    assert np.abs(fit(x).covariance - near).max() > 1


def test_shifts_of_real_and_fake_may_differ():
    """Also far from the mean of the other, and in f64, which f32 features cannot hold."""
    x, y = (z.astype(np.float32) for z in samples())
    expected = by_sqrtm(np.float64(x), np.float64(y))
    found = m.frechet_distance(fit(x, x.mean(axis=0) / 3), fit(y, np.full(5, 100 / 7)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_psum_over_devices(eight_devices):
    x, _ = samples(n=64)
    parts = x.reshape(8, 8, 5).astype(np.float32)

    def device(x):
        return jax.lax.psum(m.feature_sums(x, jnp.ones(5)), "i")

    total = jax.pmap(device, axis_name="i")(parts)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-3),
        total,
        m.feature_sums(x, jnp.ones(5)),
    )


def test_bias_of_equal_laws_halves_with_n():
    """In 16 dimensions; the documented trap, and the reason to state N."""
    rng = np.random.default_rng(0)

    def bias(n):
        draws = rng.normal(size=(20, 2, n, 16))
        return np.mean([m.frechet_distance(fit(x), fit(y)) for x, y in draws])

    small, large = bias(200), bias(400)
    assert small > 0.4
    assert large / small == pytest.approx(0.5, abs=0.05)


def test_fewer_examples_than_features_on_request(x64):
    """The distance of singular Gaussians is defined; by the roots of the eigenvalues of S_r S_f."""
    x, y = (z[:4] for z in samples())
    one, two = (m.gaussian_fit(m.feature_sums(z, z[0]), z[0], min_examples=2) for z in (x, y))
    np.testing.assert_allclose(one.covariance, np.cov(x.T), rtol=1e-10, atol=1e-12)
    roots = np.sqrt(np.abs(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).real))
    gap = x.mean(axis=0) - y.mean(axis=0)
    expected = gap @ gap + np.trace(np.cov(x.T) + np.cov(y.T)) - 2 * roots.sum()
    assert m.frechet_distance(one, two) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(fit(samples()[0][:6]).covariance).all()


def test_nan_in_a_fit_is_shown():
    law = m.GaussianFit(np.zeros(2), np.eye(2))
    for bad in (
        m.GaussianFit(np.array([np.nan, 0]), np.eye(2)),
        m.GaussianFit(np.zeros(2), np.full((2, 2), np.nan)),
    ):
        assert np.isnan(m.frechet_distance(law, bad)) and np.isnan(m.frechet_distance(bad, law))


def test_a_mask_of_integers_counts_as_booleans():
    x = samples()[0][:3]
    whole, masked = m.feature_sums(x[:2], x[0]), m.feature_sums(x, x[0], np.array([2, 1, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, masked)
