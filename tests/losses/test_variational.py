"""The bound: known KL terms, a linear-Gaussian model whose likelihood is exact, Su's f-VAE."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, optimize, special, stats

from jaxgen import divergences, flows, losses

KEY = jax.random.key(0)
rng = np.random.default_rng(0)
MEAN, LOG_STD = rng.normal(size=(2, 4, 3)) * np.array([1, 0.4]).reshape(2, 1, 1)


def standard_log_prob(z):
    return losses.gaussian_log_prob(z, 0, 0)


def test_reparameterize():
    mean, log_std = jnp.array([1.0, -2.0]), jnp.array([0.5, -1.0])
    z = losses.reparameterize(KEY, jnp.broadcast_to(mean, (40_000, 2)), log_std)
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=5 * np.exp(0.5) / 200)
    np.testing.assert_allclose(np.log(z.std(axis=0)), log_std, atol=0.02)
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.025

    def one(mean, log_std):
        return losses.reparameterize(KEY, mean, log_std)

    slopes = jax.vmap(jax.grad(lambda m, s: jnp.sum(one(m, s)), (0, 1)))(mean, log_std)
    np.testing.assert_allclose(slopes[0], 1)
    np.testing.assert_allclose(slopes[1], jax.vmap(one)(mean, log_std) - mean, rtol=1e-6)
    assert one(mean.astype(jnp.bfloat16), log_std).dtype == jnp.bfloat16


def test_gaussian_log_prob_against_scipy(x64):
    z = rng.normal(size=(2, 4, 3))
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(z).sum(-1)
    np.testing.assert_allclose(losses.gaussian_log_prob(z, MEAN, LOG_STD), expected)
    np.testing.assert_allclose(standard_log_prob(z), stats.norm.logpdf(z).sum(-1))


def test_kl_sums_over_latents(x64):
    """Common code averages over them: 1.2083 instead of 3.625 nats."""
    mean, log_std = np.array([[1.0, -2, 0]]), np.log([[0.25, 1, 4]]) / 2
    np.testing.assert_allclose(divergences.gaussian_kl_to_standard(mean, log_std), [3.625])
    sampled = sampled_kl(np.repeat(mean, 20_000, axis=0), log_std)
    np.testing.assert_allclose(sampled.mean(), 3.625, atol=5 * sampled.std() / 20_000**0.5)


def sampled_kl(mean, log_std):
    z = losses.reparameterize(KEY, mean, log_std)
    return losses.gaussian_log_prob(z, mean, log_std) - standard_log_prob(z)


def test_analytic_kl_is_the_mean_of_the_sampled_one(x64):
    expected = divergences.gaussian_kl_to_standard(MEAN, LOG_STD)
    sampled = sampled_kl(np.repeat(MEAN[:, None], 20_000, axis=1), LOG_STD[:, None])
    np.testing.assert_array_less(
        np.abs(sampled.mean(1) - expected), 5 * sampled.std(1) / 20_000**0.5
    )


# x = W z + b + s eps. The columns of W are orthogonal, so the true posterior is diagonal.
W = np.array([[1.0, 0.5], [2.0, -0.5], [-1.0, -0.5]])
B, S = np.array([0.3, -1.0, 2.0]), 0.7
PRECISION = 1 + (W**2).sum(0) / S**2
POINTS = rng.normal(size=(4, 3)) * 2
EXACT = stats.multivariate_normal(B, W @ W.T + S**2 * np.eye(3)).logpdf(POINTS)


def posterior(x):
    return (x - B[None]) @ W / S**2 / PRECISION[None], -0.5 * np.log(PRECISION)


def encoder(x):
    mean, log_std = posterior(x)
    return mean + 0.2, log_std + np.array([0.3, -0.2])


def decoder(x, z):
    return losses.gaussian_log_likelihood(x, z @ W.T + B[None], np.log(S))


def bounds(encoder, count):
    """Of the four points, for `count` samples of z each: [count, 4]."""
    return jax.vmap(
        lambda key: losses.elbo(encoder, decoder, standard_log_prob, key, POINTS).bound
    )(jax.random.split(KEY, count))


def test_the_bound_is_exact_at_the_true_posterior(x64):
    assert abs(W[:, 0] @ W[:, 1]) < 1e-15
    np.testing.assert_allclose(bounds(posterior, 3), np.tile(EXACT, (3, 1)), rtol=1e-10)


def test_the_bound_falls_short_by_the_kl_to_the_true_posterior(x64):
    mean, log_std = (np.broadcast_to(x, (4, 2)) for x in encoder(POINTS))
    true_mean, true_log_std = (np.broadcast_to(x, (4, 2)) for x in posterior(POINTS))
    gap = divergences.gaussian_kl(mean, log_std, true_mean, true_log_std)
    drawn = np.asarray(bounds(encoder, 20_000))
    assert np.all(gap > 0.05)
    np.testing.assert_allclose(drawn.mean(0), EXACT - gap, atol=5 * drawn.std() / 20_000**0.5)
    # The importance-weighted bound lies between, and closes in.
    short = [
        (EXACT - np.asarray(losses.importance_weighted_bound(groups)).reshape(-1, 4)).mean(0)
        for groups in (drawn.reshape(k, -1) for k in (1, 2, 10, 100))
    ]
    assert np.all(np.diff(short, axis=0) < 0)
    assert np.all(np.abs(short[-1]) < 0.05 * gap)


def test_importance_weighted_bound_by_numpy(x64):
    log_weights = 3 * rng.normal(size=(5, 4)) - 1000
    expected = np.log(np.mean(np.exp(log_weights + 1000), axis=0)) - 1000
    np.testing.assert_allclose(losses.importance_weighted_bound(log_weights), expected)
    np.testing.assert_array_equal(losses.importance_weighted_bound(log_weights[:1]), log_weights[0])
    slope = jax.grad(lambda v: jnp.sum(losses.importance_weighted_bound(v)))(log_weights)
    np.testing.assert_allclose(slope, special.softmax(log_weights, axis=0))


def test_f_vae_is_the_loss_of_the_paper(x64):
    """Su and Wu 2018, written out for linear E and G, and actnorm as the flow F."""
    x, log_s1, log_s2 = rng.normal(size=(3, 2, 2, 1)), -0.7, -7.0
    flow, params = (
        flows.actnorm(),
        {
            "shift": np.full((1, 1, 1), 0.4),
            "log_scale": np.full((1, 1, 1), 0.2),
        },
    )
    terms = losses.elbo(
        lambda x: (0.8 * x - 0.3, log_s1),
        lambda x, h: losses.gaussian_log_likelihood(x, h + 0.1, losses.soft_floor(log_s2, -6.0)),
        lambda h: flows.log_prob(flow, params, h),
        KEY,
        x,
    )
    u = np.asarray(losses.reparameterize(KEY, np.zeros_like(x), 0.0))
    h = 0.8 * x - 0.3 + np.exp(log_s1) * u
    log_scale, s2, d = 0.2, np.exp(-7) + np.exp(-6), 4

    def square(v):
        return (v**2).sum((1, 2, 3))

    expected = (
        square(h + 0.1 - x) / (2 * s2**2)
        + d / 2 * np.log(2 * np.pi)
        + d * np.log(s2)
        + square((h + 0.4) * np.exp(log_scale)) / 2
        - d * log_scale
        - d * log_s1
        - square(u) / 2
    )
    np.testing.assert_allclose(-terms.bound, expected, rtol=1e-9)
    log_posterior = stats.norm(0.8 * x - 0.3, np.exp(log_s1)).logpdf(h).sum((1, 2, 3))
    np.testing.assert_allclose(terms.log_posterior, log_posterior)


def test_a_dequantized_bound_is_a_bound_on_the_probability_of_pixels(x64):
    """y = z + s eps with z ~ N(1/2, 1/16), pixels floor(4 y); the posterior of z is exact."""
    s, prior_std = 0.1, 0.25
    marginal = stats.norm(0.5, np.hypot(s, prior_std))
    exact = np.log(np.diff(marginal.cdf(np.arange(5) / 4)))
    gain = prior_std**2 / (prior_std**2 + s**2)
    pixels = np.repeat(np.arange(4), 2_000).reshape(-1, 1)
    y, logdet = flows.dequantize(KEY, pixels, levels=4)
    terms = losses.elbo(
        lambda y: (0.5 + gain * (y - 0.5), np.log(s * gain**0.5)),
        lambda y, z: losses.gaussian_log_likelihood(y, z, np.log(s)),
        lambda z: losses.gaussian_log_prob(z, 0.5, np.log(prior_std)),
        KEY,
        y,
    )
    actual = np.asarray(terms.bound + logdet).reshape(4, -1).mean(1)
    expected = [
        integrate.quad(lambda u, k=k: marginal.logpdf((k + u) / 4), 0, 1)[0] - np.log(4)
        for k in range(4)
    ]
    np.testing.assert_allclose(actual, expected, atol=0.03)
    assert np.all(expected < exact)


def test_free_bits(x64):
    kl = np.array([[0.1, 2.0, 0.5], [0.3, 4.0, 0.5]])
    np.testing.assert_allclose(losses.free_bits(kl, 0.5), [0.5, 3, 0.5])
    np.testing.assert_allclose(losses.free_bits(kl, 0), [0.2, 3, 0.5])
    slope = jax.grad(lambda kl: jnp.sum(losses.free_bits(kl, 0.5)))(kl)
    np.testing.assert_allclose(slope, [[0, 0.5, 0.5], [0, 0.5, 0.5]])
    shown = jax.jit(losses.free_bits)(jnp.array([[jnp.nan, 1.0]]), 0.5)
    np.testing.assert_array_equal(np.isnan(shown), [True, False])


def test_gradient_of_the_bound(x64):
    x = POINTS[:2]

    @jax.jit
    def loss(theta):
        terms = losses.elbo(
            lambda x: (x @ theta[:6].reshape(3, 2), theta[6:]), decoder, standard_log_prob, KEY, x
        )
        return -jnp.mean(terms.bound)

    theta = np.array([0.1, 0.2, -0.3, 0.4, 0.0, 0.1, -0.5, 0.3])
    numeric = optimize.approx_fprime(theta, lambda v: float(loss(v)), 1e-7)
    np.testing.assert_allclose(jax.grad(loss)(theta), numeric, rtol=1e-5, atol=1e-6)


def test_a_narrow_posterior_keeps_its_digits():
    """log q is that of the noise: (z - mean) / std would be rounded away beside a mean of 1000."""
    mean = jnp.full((2, 50), 1000.0)
    terms = losses.elbo(
        lambda x: (x, -12.0), lambda x, z: jnp.zeros(2), lambda z: jnp.zeros(2), KEY, mean
    )
    eps = losses.reparameterize(KEY, jnp.zeros((2, 50)), 0.0)
    expected = stats.norm.logpdf(eps).sum(1) + 50 * 12
    np.testing.assert_allclose(terms.log_posterior, expected, rtol=1e-6)
