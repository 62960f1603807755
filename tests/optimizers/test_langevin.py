import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import solve_discrete_lyapunov

from jaxgen import optimizers as opt

KEY = jax.random.key(0)
CHAINS = 40_000


def sample(optimizer, h, steps):
    """Independent chains on h theta^2 / 2, all from 0."""

    def step(carry, _):
        theta, state = carry
        updates, state = optimizer.update(h * theta, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    theta = jnp.zeros(CHAINS)
    (theta, state), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), length=steps)
    return theta, state


def assert_variance(x, expected):
    # The variance of n normal draws has the standard deviation sqrt(2/n) of itself: 4.5 of them.
    assert float(jnp.var(x)) == pytest.approx(expected, rel=4.5 * (2 / CHAINS) ** 0.5)
    assert float(jnp.mean(x)) == pytest.approx(0, abs=4.5 * (expected / CHAINS) ** 0.5)


@pytest.mark.parametrize("gamma, h", [(0.1, 2.0), (0.8, 1.5)])
def test_sgld_stationary_variance(gamma, h):
    """(1 - gamma h) theta + sqrt(2 gamma T) xi has the variance T / (h (1 - gamma h/2))."""
    theta, _ = sample(opt.sgld(gamma, 0.7, KEY), h, 60)
    assert_variance(theta, 0.7 / (h * (1 - gamma * h / 2)))


@pytest.mark.parametrize("gamma, friction, h", [(0.3, 1.0, 2.0), (0.9, 2.0, 1.5)])
def test_underdamped_stationary_variance(gamma, friction, h):
    """The 2x2 linear system's own stationary covariance, which is T/h + O(gamma^2)."""
    half, t = friction * gamma / 2, 0.7
    keep, push = (1 - half) / (1 + half), gamma / (1 + half)
    # (theta, v) -> (theta + gamma v', v'), v' = keep v - push h theta + noise.
    a = np.array([[1 - gamma * push * h, gamma * keep], [-push * h, keep]])
    b = np.array([[gamma], [1.0]]) * np.sqrt(2 * friction * t * gamma) / (1 + half)
    expected = solve_discrete_lyapunov(a, b @ b.T)
    theta, state = sample(opt.underdamped_langevin(gamma, friction, t, KEY), h, 120)
    assert_variance(theta, expected[0, 0])
    assert_variance(state.move / gamma, expected[1, 1])
    assert expected[0, 0] == pytest.approx(t / h, rel=0.5 * gamma**2 * h)


def test_cold_limits():
    g, theta = jnp.array([1.0, -2.0]), jnp.zeros(2)
    cold = opt.sgld(0.1, 1e-20, KEY)
    np.testing.assert_allclose(cold.update(g, cold.init(theta))[0], -0.1 * g, rtol=1e-5)
    gamma, friction = opt.step_and_friction(0.1, 0.9)
    ours, theirs = opt.underdamped_langevin(gamma, friction, 1e-20, KEY), optax.sgd(0.1, 0.9)
    a, b = ours.init(theta), theirs.init(theta)
    for _ in range(4):
        u, a = ours.update(g, a)
        v, b = theirs.update(g, b)
        np.testing.assert_allclose(u, v, rtol=1e-5)


def test_heavy_friction_is_sgld():
    """lambda gamma = 2: no momentum, learning rate gamma^2 / 2, and the same noise."""
    gamma, g, theta = 0.4, jnp.array([1.0, -2.0]), jnp.zeros(2)
    ours, other = opt.underdamped_langevin(gamma, 2 / gamma, 0.3, KEY), opt.sgld(0.08, 0.3, KEY)
    a, b = ours.init(theta), other.init(theta)
    for _ in range(3):
        u, a = ours.update(g, a)
        v, b = other.update(g, b)
        np.testing.assert_allclose(u, v, rtol=1e-5)


def test_noise_follows_the_schedule():
    rule = opt.sgld(lambda step: jnp.where(step == 0, 0.01, 0.04), 1.0, KEY)
    theta = jnp.zeros(CHAINS)
    state = rule.init(theta)
    first, state = rule.update(theta, state)
    second, _ = rule.update(theta, state)
    assert_variance(first, 0.02)
    assert_variance(second, 0.08)
    # Steps and leaves have noise of their own.
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    pair, _ = rule.update({"a": theta, "b": theta}, state)
    assert abs(np.corrcoef(pair["a"], pair["b"])[0, 1]) < 0.03


MAKERS = {
    "sgld": lambda k: opt.sgld(0.1, 1.0, k),
    "underdamped_langevin": lambda k: opt.underdamped_langevin(0.1, 1.0, 1.0, k),
}


@pytest.mark.parametrize("name", MAKERS)
def test_chains_under_vmap_have_noise_of_their_own(name):
    rule, n = MAKERS[name](KEY), 2000
    keys, thetas = jax.random.split(jax.random.key(1), n), jnp.zeros((n, 2))
    traces = []

    @jax.jit
    def step(state, theta):
        traces.append(1)
        updates, state = jax.vmap(rule.update)(theta, state)
        return state, theta + updates

    def run(state):
        theta = thetas
        for _ in range(3):
            state, theta = step(state, theta)
        return theta

    theta = run(jax.vmap(rule.init)(thetas, keys))
    assert len(traces) == 1
    assert len(np.unique(theta)) > 0.99 * theta.size
    # 4.5 standard deviations of the correlation of independent draws.
    assert abs(np.corrcoef(theta[1:, 0], theta[:-1, 0])[0, 1]) < 4.5 / n**0.5
    # In a chain of transformations the key goes in when the optimizer is made.
    inside = jax.vmap(lambda key, x: optax.chain(MAKERS[name](key)).init(x)[0])(keys, thetas)
    np.testing.assert_array_equal(run(inside), theta)
    # A key alone is that of the optimizer.
    alone, _ = rule.update(thetas[0], rule.init(thetas[0], keys[5]))
    expected, _ = MAKERS[name](keys[5]).update(thetas[0], MAKERS[name](keys[5]).init(thetas[0]))
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize("make", MAKERS.values())
def test_same_key_same_noise_and_donation(make):
    theta = jnp.zeros(3)
    a, b, c = make(KEY), make(KEY), make(jax.random.key(1))
    step = jax.jit(a.update, donate_argnums=1)
    first, _ = step(theta, a.init(theta))
    again, _ = step(theta, a.init(theta))  # the constructor's key was not donated
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, b.update(theta, b.init(theta))[0])
    assert (first != c.update(theta, c.init(theta))[0]).all()
