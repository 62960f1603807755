"""A ready flow for vectors: it starts at the data's own Gaussian, and learns what that is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from jaxgen import flows


def fit(flow, x, context=None, steps=300):
    optimizer = optax.adam(5e-3)

    @jax.jit
    def run(key):
        params = flow.init(key, x, context)

        def step(carry, _):
            params, state = carry
            loss = lambda p: -flows.log_prob(flow, p, x, context).mean()  # noqa: E731
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return params, jax.lax.scan(step, (params, optimizer.init(params)), None, steps)[0][0]

    return run(jax.random.key(0))


def test_two_moons_and_the_integral_of_the_density():
    """x2 given x1 is bent: a Gaussian cannot follow, and held-out points are likelier."""

    def draw(n, seed):
        t, noise = np.random.default_rng(seed).normal(size=(2, n))
        return np.stack([3 * t, t**2 + 0.2 * noise], 1).astype(np.float32)

    flow, train, test = flows.coupling_flow(2, depth=4, width=24), draw(500, 0), draw(1000, 1)
    start, params = fit(flow, train)
    log_prob = jax.jit(lambda p, x: flows.log_prob(flow, p, x))

    # Untrained: rotations of the standardised data have the density of independent Gaussians.
    independent = scipy.stats.norm(train.mean(0), train.std(0) + 1e-3).logpdf(test).sum(1)
    np.testing.assert_allclose(log_prob(start, test), independent, rtol=1e-3, atol=1e-3)

    gaussian = scipy.stats.multivariate_normal(train.mean(0), np.cov(train.T)).logpdf(test).mean()
    true = (
        scipy.stats.norm(0, 3).logpdf(test[:, 0])
        + scipy.stats.norm(test[:, 0] ** 2 / 9, 0.2).logpdf(test[:, 1])
    ).mean()
    learned = float(log_prob(params, test).mean())
    assert gaussian + 0.8 < learned < true + 0.05

    sides = [np.linspace(-20, 20, 400), np.linspace(-6, 26, 1200)]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    area = (sides[0][1] - sides[0][0]) * (sides[1][1] - sides[1][0])
    assert abs(np.exp(np.asarray(log_prob(params, grid), np.float64)).sum() * area - 1) < 5e-3


def test_in_one_dimension_it_is_conditioned_on_its_context_alone():
    """x ~ N(c, (1/2 + c^2 / 4)^2): mean and scale are learned."""
    rng = np.random.default_rng(0)
    context = rng.uniform(-1, 1, (600, 1)).astype(np.float32)
    std = 0.5 + context**2 / 4
    x = (context + std * rng.normal(size=(600, 1))).astype(np.float32)
    flow = flows.coupling_flow(1, depth=2, width=16)
    _, params = fit(flow, x, context)
    drawn = flows.sample(flow, params, jax.random.key(1), (4000, 1), jnp.array([[0.8]]))
    assert abs(drawn.mean() - 0.8) < 0.15
    assert abs(drawn.std() - 0.66) < 0.12
    nats = flows.log_prob(flow, params, x, context).mean()
    assert abs(nats - scipy.stats.norm(context, std).logpdf(x).mean()) < 0.05


def test_calls_that_are_not_jitted_compile_once(draw, caplog):
    flow = flows.coupling_flow(3, depth=2, width=4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    params, key = draw(flow, x), jax.random.key(0)

    def calls():
        return (
            flows.log_prob(flow, params, x),
            flows.sample(flow, params, key, (4, 3)),
            flows.sample_and_log_prob(flow, params, key, (4, 3)),
        )

    with jax.log_compiles():
        first = calls()
        assert any("Compiling" in record.getMessage() for record in caplog.records)
        caplog.clear()
        again = calls()
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    jax.tree.map(np.testing.assert_array_equal, first, again)
