"""Learned elementwise transforms: densities in one dimension, and independent marginals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from jaxgen import flows

FLOW = flows.elementwise(flows.rational_quadratic_spline(10, 4.0))
log_prob = jax.jit(lambda params, x: flows.log_prob(FLOW, params, x))


def mixture(rng, n):
    return np.where(rng.random(n) < 0.6, rng.normal(-1.5, 0.3, n), rng.normal(1.2, 0.6, n))[:, None]


def test_a_spline_fits_a_mixture_in_one_dimension():
    rng = np.random.default_rng(0)
    train, test = mixture(rng, 500).astype(np.float32), mixture(rng, 2000).astype(np.float32)
    optimizer = optax.adam(0.03)

    @jax.jit
    def fit(params):
        def step(carry, _):
            params, state = carry
            loss = lambda p: -flows.log_prob(FLOW, p, train).mean()  # noqa: E731
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, 300)[0][0]

    start = FLOW.init(jax.random.key(0), train)
    np.testing.assert_array_equal(start, np.zeros(29))  # the identity
    np.testing.assert_allclose(
        log_prob(start, train), scipy.stats.norm.logpdf(train[:, 0]), rtol=1e-4
    )
    params = fit(start)

    grid = np.linspace(-12, 12, 6001, dtype=np.float32)[:, None]
    density = np.exp(np.asarray(log_prob(params, grid), np.float64))
    assert abs(density.sum() * 24 / 6000 - 1) < 1e-3
    true = np.log(
        0.6 * scipy.stats.norm(-1.5, 0.3).pdf(test) + 0.4 * scipy.stats.norm(1.2, 0.6).pdf(test)
    ).mean()
    gaussian = scipy.stats.norm(train.mean(), train.std()).logpdf(test).mean()
    spline = float(log_prob(params, test).mean())
    assert true - 0.1 < spline < true  # a Gaussian is 0.6 nats below the truth
    assert gaussian < true - 0.5


def test_every_channel_has_its_own_transform():
    flow = flows.elementwise(flows.affine())
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 2)), jnp.float32)
    raw = jnp.array([1.0, -2.0, 0.5, 0.0])  # shifts of both channels, then log-scales
    z, logdet = jax.jit(flow.forward)(raw, x)
    log_scale = np.array([2 * np.tanh(0.25), 0.0])
    np.testing.assert_allclose(z, np.asarray(x) * np.exp(log_scale) + [1, -2], rtol=1e-5)
    np.testing.assert_allclose(logdet, np.full(2, 12 * log_scale[0]), rtol=1e-5)
    integers, _ = flow.forward(raw, jnp.ones((2, 2), jnp.int32))
    np.testing.assert_array_equal(integers, flow.forward(raw, jnp.ones((2, 2)))[0])
