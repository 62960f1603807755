"""Terms of the clustering VAE: closed form against samples, Su's loss, VaDE's posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxgen import divergences, flows, losses

KEY = jax.random.key(0)
rng = np.random.default_rng(0)
COUNT, CLUSTERS, DIMS = 4, 3, 2
MEAN, LOG_STD = rng.normal(size=(2, COUNT, DIMS)) * np.array([1, 0.3]).reshape(2, 1, 1)
CENTERS, SPREADS = rng.normal(size=(2, CLUSTERS, DIMS)) * np.array([1, 0.3]).reshape(2, 1, 1)
POSTERIOR = rng.dirichlet(np.ones(CLUSTERS), COUNT)
LOGITS = rng.normal(size=CLUSTERS)
FIXED = [np.zeros((CLUSTERS, DIMS)), SPREADS]


def noisy(key=KEY, mean=MEAN):
    """z, and the noise that it was drawn with."""
    eps = np.asarray(losses.reparameterize(key, np.zeros_like(mean), 0.0))
    return np.asarray(losses.reparameterize(key, mean, LOG_STD)), eps


@pytest.mark.parametrize("spreads", FIXED, ids=["unit", "learned"])
def test_closed_form_by_numpy(spreads, x64):
    expected = np.zeros(COUNT)
    for i, y in np.ndindex(COUNT, CLUSTERS):
        var, var_y = np.exp(2 * LOG_STD[i]), np.exp(2 * spreads[y])
        kl = np.log(var_y / var) + (var + (MEAN[i] - CENTERS[y]) ** 2) / var_y - 1
        expected[i] += POSTERIOR[i, y] * kl.sum() / 2
    actual = losses.cluster_kl(POSTERIOR, MEAN, LOG_STD, CENTERS, spreads)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_closed_form_is_the_mean_of_the_sampled_one(x64):
    def draw(key):
        z = losses.reparameterize(key, MEAN, LOG_STD)
        return losses.sampled_cluster_kl(POSTERIOR, z, MEAN, LOG_STD, CENTERS, SPREADS)

    sampled = np.asarray(jax.vmap(draw)(jax.random.split(KEY, 20_000)))
    expected = losses.cluster_kl(POSTERIOR, MEAN, LOG_STD, CENTERS, SPREADS)
    bound = 5 * sampled.std(0) / 20_000**0.5
    assert np.all(bound < 0.1)
    np.testing.assert_array_less(np.abs(sampled.mean(0) - expected), bound)


def test_the_loss_of_the_post_up_to_its_constants(x64):
    """Equations 5 to 8 of kexue.fm post 5887, as bojone/vae computes them."""
    x, made = rng.normal(size=(2, COUNT, 5))
    z, eps = noisy()
    lam, log_var = 2.5, 2 * LOG_STD
    p = special.softmax(z @ rng.normal(size=(DIMS, CLUSTERS)), axis=1)
    post = 0.5 * lam * ((x - made) ** 2).sum(1)
    post += (p[..., None] * 0.5 * ((z[:, None] - CENTERS) ** 2 - log_var[:, None])).sum((1, 2))
    post += (p * np.log(p)).sum(1)

    uniform = np.full_like(p, 1 / CLUSTERS)
    ours = (
        losses.sampled_cluster_kl(p, z, MEAN, LOG_STD, CENTERS, 0.0)
        + divergences.kl_divergence(p, uniform)
        - losses.gaussian_log_likelihood(x, made, -np.log(lam) / 2)
    )
    constants = (eps**2).sum(1) / 2 - np.log(CLUSTERS) - 5 / 2 * np.log(2 * np.pi / lam)
    np.testing.assert_allclose(ours + constants, post, rtol=1e-10)


def test_with_bayes_posterior_the_terms_are_those_of_a_mixture_prior(x64):
    """VaDE: the expectation over y of log p(z, y) / p(y | z) is log p(z)."""
    z, _ = noisy()
    posterior = np.exp(losses.cluster_log_posterior(z, CENTERS, SPREADS, LOGITS))
    weights = np.broadcast_to(special.softmax(LOGITS), posterior.shape)
    actual = losses.sampled_cluster_kl(posterior, z, MEAN, LOG_STD, CENTERS, SPREADS)
    actual += divergences.kl_divergence(posterior, weights)
    log_prior = flows.mixture(LOGITS, CENTERS, SPREADS).log_prob(z)
    log_q = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(z).sum(1)
    np.testing.assert_allclose(actual, log_q - log_prior, rtol=1e-10)
    densities = stats.norm(CENTERS, np.exp(SPREADS)).pdf(z[:, None]).prod(-1)
    joint = densities * special.softmax(LOGITS)
    np.testing.assert_allclose(posterior, joint / joint.sum(1, keepdims=True), rtol=1e-10)


def test_posterior_halves_the_log_variance():
    """ClustPy has .8 and .2 here: its log-variance has coefficient 1."""
    log_std = np.log([[1.0], [2.0]])
    log_posterior = losses.cluster_log_posterior(
        np.zeros((1, 1)), np.zeros((2, 1)), log_std, np.zeros(2)
    )
    np.testing.assert_allclose(np.exp(log_posterior), [[2 / 3, 1 / 3]], rtol=1e-6)


def test_far_points_keep_their_cluster():
    """Code that adds 1e-10 to the densities has one half for each."""
    centers = np.stack([np.zeros(10), np.ones(10)])

    def log_posterior(z):
        return losses.cluster_log_posterior(z, centers, 0.0, np.zeros(2))

    np.testing.assert_allclose(log_posterior(np.full((1, 10), 50.0)), [[-495, 0]], atol=1e-3)
    slope = jax.grad(lambda z: jnp.sum(log_posterior(z)[:, 0]))(np.full((1, 10), 50.0))
    np.testing.assert_allclose(slope, -1)


def test_a_classifier_that_is_certain():
    """p = 0 for the other clusters: both terms and their gradients are finite."""
    z = jnp.asarray(MEAN, jnp.float32)

    def loss(logits, prior_logits):
        p = jax.nn.softmax(logits)
        prior = jnp.broadcast_to(jax.nn.softmax(prior_logits), p.shape)
        kl = losses.sampled_cluster_kl(p, z, MEAN, LOG_STD, CENTERS, SPREADS)
        return jnp.mean(kl), divergences.kl_divergence(p, prior)

    logits = 1e4 * jnp.eye(COUNT, CLUSTERS)
    _, label = loss(logits, jnp.zeros(CLUSTERS))
    np.testing.assert_allclose(label, [*[np.log(CLUSTERS)] * CLUSTERS, 0], rtol=1e-6, atol=1e-7)
    slopes = jax.jit(jax.grad(lambda *v: sum(map(jnp.sum, loss(*v))), (0, 1)))(
        logits, jnp.zeros(CLUSTERS)
    )
    assert all(np.all(np.isfinite(slope)) for slope in slopes)
    np.testing.assert_allclose(slopes[1], COUNT / 3 - np.ones(CLUSTERS) - 1 / 3, atol=1e-6)


def test_one_cluster_is_the_plain_vae(x64):
    one, zero = np.ones((COUNT, 1)), np.zeros((1, DIMS))
    z, _ = noisy()
    plain = divergences.gaussian_kl_to_standard(MEAN, LOG_STD)
    np.testing.assert_allclose(losses.cluster_kl(one, MEAN, LOG_STD, zero, 0.0), plain)
    sampled = losses.gaussian_log_prob(z, MEAN, LOG_STD) - losses.gaussian_log_prob(z, 0, 0)
    actual = losses.sampled_cluster_kl(one, z, MEAN, LOG_STD, zero, 0.0)
    np.testing.assert_allclose(actual, sampled)
    np.testing.assert_array_equal(losses.cluster_log_posterior(z, zero, 0.0, np.zeros(1)), 0)
    np.testing.assert_array_equal(divergences.kl_divergence(one, one), 0)


def test_equal_points_and_equal_clusters():
    """Constant images have one code; clusters that coincide share it by their weights."""
    z = jnp.full((5, DIMS), 0.3)
    centers = jnp.zeros((CLUSTERS, DIMS))
    log_posterior = losses.cluster_log_posterior(z, centers, 0.0, LOGITS)
    expected = np.tile(special.log_softmax(LOGITS), (5, 1))
    np.testing.assert_allclose(log_posterior, expected, rtol=1e-5)
    posterior = jnp.exp(log_posterior)

    @jax.jit
    def total(centers, log_std):
        return jnp.sum(losses.cluster_kl(posterior, z, log_std, centers, 0.0))

    slopes = jax.grad(total, (0, 1))(centers, jnp.full_like(z, -30.0))
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_assignment_information_is_iics():
    """Against a transcription of equation 3, and the limits 0 and log K."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), (2, 3, 7))
    found = losses.assignment_information(p, q)
    for one, other, value in zip(p, q, found, strict=True):
        joint = one.T @ other / 7
        joint = (joint + joint.T) / 2
        ratio = joint / np.outer(joint.sum(1), joint.sum(0))
        np.testing.assert_allclose(value, np.sum(joint * np.log(ratio)), rtol=1e-5)
    sure = np.eye(4)[np.arange(8) % 4]
    np.testing.assert_allclose(losses.assignment_information(sure, sure), np.log(4), rtol=1e-6)
    one = np.eye(4)[np.zeros(8, int)]
    np.testing.assert_allclose(losses.assignment_information(one, one), 0, atol=1e-7)
    np.testing.assert_allclose(
        losses.assignment_information(np.full((8, 4), 0.25), sure), 0, atol=1e-7
    )
