"""Bases against scipy: densities, draws, temperature, and the two ways to make them depend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen import flows

RNG = np.random.default_rng(0)
B, D, K = 5, 3, 4
MEAN, LOG_STD = RNG.normal(size=(K, D)), 0.4 * RNG.normal(size=(K, D))
CHOLESKY = np.tril(RNG.normal(size=(K, D, D))) + 1.5 * np.eye(D)
LOGITS = RNG.normal(size=K)
WEIGHTS = np.exp(LOGITS) / np.exp(LOGITS).sum()
Z = RNG.normal(size=(B, D))


def log_normal(z, mean, cholesky):
    return scipy.stats.multivariate_normal(mean, cholesky @ cholesky.T).logpdf(z)


def log_mixture(z, mean, cholesky, weights=WEIGHTS):
    each = [
        w * np.exp(log_normal(z, m, c)) for w, m, c in zip(weights, mean, cholesky, strict=True)
    ]
    return np.log(sum(each))


DIAGONAL = np.stack([np.diag(np.exp(s)) for s in LOG_STD])
BASES = {  # base, its log-density at Z, its mean and covariance
    "gaussian": (flows.gaussian(MEAN[0], LOG_STD[0]), log_normal(Z, MEAN[0], DIAGONAL[0])),
    "gaussian_full": (
        flows.gaussian_full(MEAN[0], CHOLESKY[0]),
        log_normal(Z, MEAN[0], CHOLESKY[0]),
    ),
    "mixture": (flows.mixture(LOGITS, MEAN, LOG_STD), log_mixture(Z, MEAN, DIAGONAL)),
    "mixture_full": (
        flows.mixture(LOGITS, MEAN, CHOLESKY, component=flows.gaussian_full),
        log_mixture(Z, MEAN, CHOLESKY),
    ),
}


def moments(name, temperature=1.0):
    """Mean and covariance, from the law of total covariance."""
    mixed = name.startswith("mixture")
    w = WEIGHTS if mixed else np.eye(K)[0]
    factors = CHOLESKY if name.endswith("full") else DIAGONAL
    mean = w @ MEAN
    within = np.einsum("k,kij,klj->il", w, factors, factors)
    between = np.einsum("k,ki,kj->ij", w, MEAN - mean, MEAN - mean)
    return mean, temperature**2 * within + between


@pytest.mark.parametrize("name", BASES)
def test_log_prob_is_that_of_scipy(name):
    base, expected = BASES[name]
    np.testing.assert_allclose(base.log_prob(jnp.asarray(Z, jnp.float32)), expected, rtol=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("name", BASES)
def test_samples_have_the_moments_of_the_law(name, temperature):
    base, n = BASES[name][0], 40_000
    like = jax.ShapeDtypeStruct((n, D), jnp.float32)
    z = np.asarray(base.sample(jax.random.key(1), like, temperature))
    mean, covariance = moments(name, temperature)
    error = 5 * np.sqrt(np.diag(covariance) / n)
    assert (np.abs(z.mean(0) - mean) < error).all()
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05 * np.trace(covariance))


def test_draws_of_a_mixture_come_from_its_components_in_their_proportions():
    base = flows.mixture(LOGITS, 10 * MEAN, LOG_STD)
    like = jax.ShapeDtypeStruct((20_000, D), jnp.float32)
    cold = np.asarray(base.sample(jax.random.key(0), like, 0.0))
    chosen = np.argmin(np.abs(cold[:, None] - 10 * MEAN).sum(-1), 1)
    np.testing.assert_allclose(cold, 10 * MEAN[chosen], rtol=1e-6)
    counts = np.bincount(chosen, minlength=K)
    assert scipy.stats.chisquare(counts, len(cold) * WEIGHTS).pvalue > 1e-3


def rows(*arrays):
    """Parameters of B examples, each its own."""
    scale = np.linspace(0.5, 1.5, B)
    return [np.stack([s * a for s in scale]).astype(np.float32) for a in arrays]


@pytest.mark.parametrize(
    ("factory", "arrays"),
    [
        (flows.gaussian, (MEAN[0], LOG_STD[0])),
        (flows.gaussian_full, (MEAN[0], CHOLESKY[0])),
        (flows.mixture, (LOGITS, MEAN, LOG_STD)),
    ],
)
def test_a_conditional_base_is_that_of_each_example(factory, arrays):
    each = rows(*arrays)
    base, z = factory(*each), jnp.asarray(Z, jnp.float32)
    alone = [factory(*(p[i] for p in each)).log_prob(z[i : i + 1])[0] for i in range(B)]
    np.testing.assert_allclose(base.log_prob(z), alone, rtol=1e-5)
    # Parameters of one row serve the whole batch.
    one = factory(*(p[2:3] for p in each))
    assert one.log_prob(z).shape == (B,)
    np.testing.assert_allclose(one.log_prob(z)[2], alone[2], rtol=1e-5)

    # At temperature 0 an example's draw is a mean of its own.
    like = jax.ShapeDtypeStruct((B, D), jnp.float32)
    means = each[-2].reshape(B, -1, D)
    cold = np.asarray(base.sample(jax.random.key(0), like, 0.0))
    assert (np.abs(cold[:, None] - means).max(-1).min(-1) < 1e-6).all()
    cold = np.asarray(one.sample(jax.random.key(0), like, 0.0))
    assert (np.abs(cold[:, None] - means[2:3]).max(-1).min(-1) < 1e-6).all()
    mixed = base.sample(jax.random.key(0), like, jnp.arange(B) / 10)
    assert np.abs(np.asarray(mixed)[0] - means[0]).max(-1).min() < 1e-6


def test_a_learned_base_is_fitted_by_gradient_descent():
    """Two clusters, of 1/4 and 3/4 of the points: weights, means and scales are found."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-2, 0.3, (200, 1)), rng.normal(1, 0.6, (600, 1))])
    params = {
        "logits": jnp.zeros(2),
        "mean": jnp.array([[-1.0], [1.0]]),
        "log_std": jnp.zeros((2, 1)),
    }

    def loss(params):
        base = flows.mixture(params["logits"], params["mean"], params["log_std"])
        return -flows.log_prob(flows.reversal(), (), x, base=base).mean()

    @jax.jit
    def fit(params):
        def descend(params, _):
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), None

        return jax.lax.scan(descend, params, None, 400)[0]

    params = fit(params)
    np.testing.assert_allclose(jax.nn.softmax(params["logits"]), [0.25, 0.75], atol=0.02)
    np.testing.assert_allclose(params["mean"][:, 0], [-2, 1], atol=0.1)
    np.testing.assert_allclose(np.exp(params["log_std"][:, 0]), [0.3, 0.6], atol=0.05)


def test_an_unconstrained_square_matrix_is_a_factor():
    """Training moves any entry: those above the diagonal do not count, and signs do not."""
    square = CHOLESKY[0] @ np.diag([1.0, -1.0, 1.0]) + np.triu(np.full((D, D), 9.0), 1)
    expected = flows.gaussian_full(MEAN[0], CHOLESKY[0]).log_prob(jnp.asarray(Z, jnp.float32))
    actual = flows.gaussian_full(MEAN[0], square).log_prob(jnp.asarray(Z, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_narrow_latents_are_measured_in_f32():
    z = jnp.full((1, 1), 300.0, jnp.float16)
    expected = scipy.stats.norm.logpdf(300.0)
    for base in (flows.standard_normal(), flows.gaussian(jnp.zeros(1), jnp.zeros(1))):
        actual = base.log_prob(z)
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, [expected], rtol=1e-6)
    like = jax.ShapeDtypeStruct((2, 1), jnp.float16)
    for base in (
        flows.gaussian(jnp.zeros(1), jnp.zeros(1)),
        flows.gaussian_full(jnp.zeros(1), jnp.eye(1)),
    ):
        assert base.sample(jax.random.key(0), like).dtype == jnp.float16
