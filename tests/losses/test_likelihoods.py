"""Likelihoods of decoders: scipy's densities, sums over levels, extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

from jaxgen import losses

rng = np.random.default_rng(0)
X, MEAN = rng.normal(size=(2, 3, 4, 2, 2))
PIXELS = rng.integers(0, 256, size=(3, 4, 2)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(), (2,), (2, 1), (4, 2, 2), (3, 1, 1, 2), X.shape])
def test_gaussian_against_scipy(shape, x64):
    log_std = np.random.default_rng(1).normal(size=shape)
    expected = stats.norm(MEAN, np.exp(log_std)).logpdf(X).sum((1, 2, 3))
    actual = losses.gaussian_log_likelihood(X, MEAN, log_std)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_sums_over_pixels_and_never_averages(x64):
    twice = [np.concatenate([a, a], axis=1) for a in (X, MEAN)]
    one = losses.gaussian_log_likelihood(X, MEAN, 0.3)
    np.testing.assert_allclose(losses.gaussian_log_likelihood(*twice, 0.3), 2 * one)
    one = losses.bernoulli_log_likelihood(X > 0, MEAN)
    both = losses.bernoulli_log_likelihood(twice[0] > 0, twice[1])
    np.testing.assert_allclose(both, 2 * one)


def test_optimal_deviation_maximizes_the_likelihood_of_the_batch(x64):
    @jax.jit
    def total(log_std):
        return jnp.sum(losses.gaussian_log_likelihood(X, MEAN, log_std))

    best = optimize.minimize_scalar(lambda s: -float(total(s)), bounds=(-3, 3), method="bounded").x
    optimal = losses.optimal_log_std(X, MEAN, floor=-40.0)
    np.testing.assert_allclose(optimal, best, atol=1e-5)
    # As the paper's code has it: softclip(log(sqrt(mse)), -6).
    log_rmse = np.log(np.sqrt(np.mean((X - MEAN) ** 2)))
    near = 0.01 * MEAN
    for mean, log_std in [(MEAN, log_rmse), (X - near, np.log(0.01 * np.sqrt(np.mean(MEAN**2))))]:
        expected = -6 + np.log1p(np.exp(log_std + 6))
        np.testing.assert_allclose(losses.optimal_log_std(X, mean), expected, rtol=1e-10)


def test_gradient_of_the_optimal_deviation(x64):
    log_std = jax.jit(lambda m: losses.optimal_log_std(X, m, -1.0))
    actual = jax.grad(log_std)(MEAN)
    numeric = optimize.approx_fprime(
        MEAN.ravel(), lambda m: float(log_std(m.reshape(X.shape))), 1e-7
    )
    np.testing.assert_allclose(actual.ravel(), numeric, rtol=1e-4, atol=1e-7)


def test_perfect_reconstruction_of_constant_images():
    """The deviation stays at the floor, with a gradient of at most exp(-floor) / sqrt(N)."""
    x = jnp.zeros((2, 3, 3, 1))

    def std(mean):
        return losses.optimal_log_std(x, mean)

    def loss(mean):
        return -jnp.mean(losses.gaussian_log_likelihood(x, mean, std(mean)))

    both = jax.jit(lambda mean: [jax.value_and_grad(f)(mean) for f in (std, loss)])
    for error in (0.0, 1e-30, 1e-20, 1e-18, 1e-6):
        (log_std, slope), (value, slope_of_loss) = both(jnp.full_like(x, error))
        np.testing.assert_allclose(log_std, -6 + np.log1p(error * np.exp(6)), rtol=1e-6)
        assert np.linalg.norm(slope) <= np.exp(6) / np.sqrt(x.size) * 1.001
        assert (error > 1e-20) == bool(np.any(slope))
        np.testing.assert_allclose(value, 9 * (np.log(2 * np.pi) / 2 - 6), rtol=1e-2)
        assert np.all(np.isfinite(slope_of_loss))


def test_soft_floor(x64):
    x = np.array([-np.inf, -1e4, -30.0, -6.0, 0.0, 3.0, 1e4])
    actual = losses.soft_floor(x, -6.0)
    np.testing.assert_allclose(actual, -6 + np.logaddexp(x + 6, 0), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(np.exp(actual[:-1]), np.exp(x[:-1]) + np.exp(-6.0))
    slope = jax.vmap(jax.grad(losses.soft_floor), (0, None))(x, -6.0)
    np.testing.assert_allclose(slope, special.expit(x + 6), atol=1e-15)


def test_bernoulli_against_scipy(x64):
    x, logits = X > 0, 3 * MEAN
    expected = stats.bernoulli(special.expit(logits)).logpmf(x).sum((1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_log_likelihood(x, logits), expected)
    grey, p = special.expit(X), special.expit(logits)
    expected = (special.xlogy(grey, p) + special.xlogy(1 - grey, 1 - p)).sum((1, 2, 3))
    np.testing.assert_allclose(losses.bernoulli_log_likelihood(grey, logits), expected)
    slope = jax.grad(lambda v: jnp.sum(losses.bernoulli_log_likelihood(grey, v)))(logits)
    np.testing.assert_allclose(slope, grey - p, rtol=1e-10)


def test_bernoulli_keeps_its_digits_at_large_logits():
    x = jnp.array([[1.0], [1.0], [0.0], [0.0]])
    logits = jnp.array([[50.0], [-1e4], [-50.0], [1e4]])
    expected = [-np.exp(-50.0), -1e4, -np.exp(-50.0), -1e4]
    np.testing.assert_allclose(losses.bernoulli_log_likelihood(x, logits), expected, rtol=1e-6)
    slope = jax.grad(lambda v: jnp.sum(losses.bernoulli_log_likelihood(x, v)))(logits)
    expected = [[np.exp(-50.0)], [1], [-np.exp(-50.0)], [-1]]
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def logistic(mean, log_scale, levels):
    """Of levels k: the law of a logistic variable rounded to the nearest, by scipy."""
    half = (levels - 1) / 2
    return stats.logistic((mean + 1) * half, np.exp(log_scale) * half)


@pytest.mark.parametrize("log_scale", [-7.0, -2.0, 0.5])
def test_discretized_logistic_against_scipy(log_scale, x64):
    mean = np.tanh(MEAN[..., 0])
    law, k = logistic(mean, log_scale, 256), PIXELS.astype(float)
    upper = np.where(k == 255, np.inf, k + 0.5) - law.mean()
    lower = np.where(k == 0, -np.inf, k - 0.5) - law.mean()
    # On the side of the mean where the difference does not cancel.
    right = lower > 0
    scale = np.exp(log_scale) * 127.5
    a, b = (np.where(right, -upper, lower) / scale, np.where(right, -lower, upper) / scale)
    difference = stats.logistic.logcdf(b) + np.log1p(
        -np.exp(stats.logistic.logcdf(a) - stats.logistic.logcdf(b))
    )
    actual = losses.discretized_logistic_log_likelihood(PIXELS, mean, log_scale)
    np.testing.assert_allclose(actual, difference.sum((1, 2)), rtol=1e-9)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_discretized_logistic_sums_to_one(levels):
    grid = np.meshgrid([-3.0, -0.4, 0.0, 0.71, 1.0], [-9.0, -3.0, 0.0, 5.0], np.arange(levels))
    mean, log_scale, k = (x.reshape(-1, 1) for x in grid)
    log_probs = losses.discretized_logistic_log_likelihood(k, mean, log_scale, levels)
    totals = np.exp(log_probs).reshape(-1, levels).sum(axis=1)
    assert len(totals) == 20
    np.testing.assert_allclose(totals, 1, rtol=3e-5)


def test_gradients_of_the_discretized_logistic(x64):
    log_scale = np.array([-1.0, 0.4])

    @jax.jit
    def total(flat):
        return jnp.sum(
            losses.discretized_logistic_log_likelihood(
                PIXELS, flat[2:].reshape(PIXELS.shape), flat[:2]
            )
        )

    point = np.concatenate([log_scale, MEAN[..., 0].ravel()])
    numeric = optimize.approx_fprime(point, lambda v: float(total(v)), 1e-7)
    np.testing.assert_allclose(jax.grad(total)(point), numeric, rtol=1e-4, atol=1e-5)


def test_discretized_logistic_at_extremes():
    means, log_scales = np.meshgrid([-1e2, -1.0, 0.2, 1.0, 1e2], [-80.0, -20.0, -7.0, 0.0, 80.0])
    for x in (0, 1, 128, 255):
        values, slopes = logistic_slopes(x, means.ravel(), log_scales.ravel())
        assert np.all(values <= 0)
        assert np.all(np.isfinite([values, *slopes]))


@jax.jit
def logistic_slopes(x, mean, log_scale):
    def total(mean, log_scale):
        pixel = jnp.full((1, 1), x)
        return losses.discretized_logistic_log_likelihood(pixel, mean[None, None], log_scale)[0]

    return jax.vmap(jax.value_and_grad(total, (0, 1)))(mean, log_scale)


def test_tails_of_the_discretized_logistic():
    """Far from the mean a level's log-probability falls by 1 / scale per unit of distance."""
    far = jnp.array([100.0, 101.0])
    for x, side in ((255, -1), (254, -1), (0, 1), (1, 1)):
        values, _ = logistic_slopes(x, side * far, jnp.full(2, -1.0))
        np.testing.assert_allclose(values[1] - values[0], -np.e, rtol=1e-4)
