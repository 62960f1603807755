import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt

BOTH = pytest.mark.parametrize("optimizer", [opt.sphere_sgd, opt.jose_sgd])


def unit(shape, seed=0, dtype=jnp.float32):
    x = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), dtype)


def norms(x):
    return np.linalg.norm(np.asarray(x, np.float64), axis=-1)


def fit(optimizer, loss, x, steps):
    state = optimizer.init(x)

    @jax.jit
    def step(x, state):
        updates, state = optimizer.update(jax.grad(loss)(x), state, x)
        return optax.apply_updates(x, updates), state

    for _ in range(steps):
        x, state = step(x, state)
    return x


def test_finds_the_top_eigenvector(x64):
    b = np.random.default_rng(0).standard_normal((5, 5))
    a = jnp.asarray(b @ b.T)
    rule = opt.sphere_sgd(0.02)
    x = fit(rule, lambda x: -0.5 * jnp.sum(x * (x @ a)), unit((3, 5), 1, a.dtype), 1500)
    top = np.linalg.eigh(a)[1][:, -1]
    np.testing.assert_allclose(np.abs(x @ top), 1, rtol=1e-8)
    np.testing.assert_allclose(norms(x), 1, rtol=1e-14)


def test_finds_the_mean_direction(x64):
    points = unit((20, 4), 2, jnp.float64) + jnp.array([[1.0, 0, 0, 0]])
    x = fit(opt.sphere_sgd(0.3), lambda x: -jnp.mean(points @ x), unit((4,), 3, jnp.float64), 300)
    mean = points.mean(0)
    np.testing.assert_allclose(x, mean / jnp.linalg.norm(mean), atol=1e-7)


def test_jose_slows_down_near_the_goal(x64):
    """angle' = -eta sin(angle) (1 - cos(angle)): angle -> 1 / sqrt(eta t) for |g| = 1."""
    goal = unit((4,), 0, jnp.float64)
    for steps in (1000, 4000):
        x = fit(opt.jose_sgd(0.3), lambda x: -jnp.sum(goal * x), unit((4,), 3, goal.dtype), steps)
        angle = jnp.linalg.norm(x - goal)
        assert angle == pytest.approx((0.3 * steps) ** -0.5, rel=0.05)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-7), (jnp.bfloat16, 6e-3)])
@BOTH
def test_norm_stays_one(optimizer, dtype, tolerance):
    rng = np.random.default_rng(0)
    x, rule = unit((50, 8), dtype=dtype), optimizer(0.5)
    state = rule.init(x)
    for _ in range(20):
        g = jnp.asarray(3 * rng.standard_normal((50, 8)), dtype)
        updates, state = rule.update(g, state, x)
        assert updates.dtype == dtype
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(norms(x), 1, atol=tolerance)


def test_step_by_hand(x64):
    x, g = unit((3, 4), 0, jnp.float64), jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))
    for rule, scaled in ((opt.sphere_sgd(0.2), False), (opt.jose_sgd(0.2), True)):
        updates, _ = rule.update(g, rule.init(x), x)
        for row in range(3):
            tangent = (np.eye(4) - np.outer(x[row], x[row])) @ g[row]
            if scaled:
                tangent = tangent * (1 + x[row] @ g[row] / np.linalg.norm(g[row]))
            moved = x[row] - 0.2 * tangent
            np.testing.assert_allclose(x[row] + updates[row], moved / np.linalg.norm(moved))


def test_tangent_is_the_gradient_on_the_sphere(x64):
    """Of L(x / |x|), which does not see the norm."""
    x, a = unit((4,), 0, jnp.float64), jnp.asarray(np.random.default_rng(1).normal(size=(4,)))

    def loss(x):
        return jnp.sum(jnp.sin(a * x))

    g = jax.grad(loss)(x)
    ours, _ = opt.project_to_tangent().update(g, (), x)
    np.testing.assert_allclose(ours, jax.grad(lambda x: loss(x / jnp.linalg.norm(x)))(x))
    np.testing.assert_allclose(ours @ x, 0, atol=1e-15)


def test_cosine_is_two_behind_and_zero_at_the_goal():
    x = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    g = jnp.array([[0.0, 2.0], [1.0, 1e-3], [-1.0, 1e-3]])
    rule = opt.project_by_cosine()
    step, _ = rule.update(g, rule.init(x), x)
    np.testing.assert_allclose(step, [[0, 2], [0, 2e-3], [0, 0]], atol=1e-6)


@BOTH
def test_zero_gradient_and_extremes(optimizer):
    x = unit((3, 4))
    rule = optimizer(1.0)
    still, _ = rule.update(jnp.zeros((3, 4)), rule.init(x), x)
    np.testing.assert_allclose(still, 0, atol=3e-7)
    far, _ = rule.update(jnp.full((3, 4), 1e15), rule.init(x), x)
    np.testing.assert_allclose(norms(x + far), 1, rtol=1e-6)


def test_zero_vector_stays_finite():
    rule = opt.retract_to_sphere()
    x = jnp.zeros((1, 3))
    update, _ = rule.update(jnp.zeros((1, 3)), rule.init(x), x)
    np.testing.assert_array_equal(update, 0)


def test_schedule_and_momentum_compose():
    x = unit((4,), 0)
    goal = unit((4,), 5)
    rule = optax.chain(
        opt.project_to_tangent(),
        optax.trace(0.9),
        optax.scale_by_learning_rate(optax.linear_schedule(0.1, 0.01, 200)),
        opt.retract_to_sphere(),
    )
    x = fit(rule, lambda x: -jnp.sum(x * goal), x, 300)
    np.testing.assert_allclose(x, goal, atol=1e-3)
