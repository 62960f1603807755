import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import optimizers as opt
from jaxgen.optimizers import ScaleByAdaxState


def direct(gradients, b1, b2, eps):
    """The paper's form, in numpy f64."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = (1 + b2) * v + b2 * g**2
        yield m / (np.sqrt(v / ((1 + b2) ** t - 1)) + eps)


@pytest.mark.parametrize("b2", [1e-4, 0.03])
def test_equals_the_direct_form(x64, b2):
    gradients = np.random.default_rng(0).standard_normal((300, 5))
    rule = opt.scale_by_adax(b2=b2)
    _, ours = jax.lax.scan(
        lambda state, g: rule.update(g, state)[::-1], rule.init(jnp.zeros(5)), jnp.array(gradients)
    )
    np.testing.assert_allclose(ours, list(direct(gradients, 0.9, b2, 1e-8)), rtol=1e-9)


def test_first_step_and_equal_gradients():
    rule = opt.scale_by_adax(b1=0.9)
    state = rule.init(jnp.zeros(2))
    for t in range(1, 6):
        u, state = rule.update(jnp.array([3.0, -0.2]), state)
        # v_hat of equal gradients is their square; m has no bias correction.
        np.testing.assert_allclose(u, (1 - 0.9**t) * np.array([1, -1]), rtol=1e-5)


@pytest.mark.parametrize("steps", [887_272, 887_273, 10_000_000])
def test_late_steps_stay_finite_and_the_memory_is_frozen(steps):
    """(1 + 1e-4)^t exceeds f32 from t = 887,273; rho is 3e-43 there."""
    log_power = steps * np.log1p(1e-4)
    assert (log_power > np.log(float(np.finfo(np.float32).max))) == (steps >= 887_273)
    rule = opt.scale_by_adax()
    v = jnp.array([2.0, 0.5])
    state = ScaleByAdaxState(jnp.asarray(steps - 1, jnp.int32), jnp.ones(2), v)
    update, state = jax.jit(rule.update)(jnp.array([1e3, 0.0]), state)
    np.testing.assert_array_equal(state.nu, v)
    np.testing.assert_allclose(update, np.array([100.9, 0.9]) / np.sqrt(v), rtol=1e-6)
    assert state.steps == steps


def test_rate_while_the_memory_is_young_and_old(x64):
    # Like 1/t, the plain mean, while b2 t is small; then falling like (1 + b2)^-t.
    def rho(t):
        rule = opt.scale_by_adax(b1=0.0, eps=0.0)
        state = ScaleByAdaxState(jnp.asarray(t - 1, jnp.int32), jnp.zeros(1), jnp.zeros(1))
        return float(rule.update(jnp.ones(1), state)[1].nu[0])

    assert rho(1) == pytest.approx(1, rel=1e-9)
    assert rho(100) == pytest.approx(0.01, rel=6e-3)
    assert rho(100_000) == pytest.approx(1e-4 / (1.0001**100_000 - 1), rel=1e-9)
    assert rho(100_001) / rho(100_000) == pytest.approx(1 / 1.0001, rel=1e-7)


def test_adax_is_scaled_and_composes():
    theta, g = {"a": jnp.ones((2, 2))}, {"a": jnp.array([[1.0, -2.0], [0.5, 4.0]])}
    recipe = opt.adax(optax.constant_schedule(0.1))
    update, _ = recipe.update(g, recipe.init(theta), theta)
    np.testing.assert_allclose(update["a"], -0.1 * 0.1 * np.sign(g["a"]), rtol=1e-5)
    decayed = optax.chain(
        opt.scale_by_adax(), optax.add_decayed_weights(0.5), optax.scale_by_learning_rate(0.1)
    )
    update_w, _ = decayed.update(g, decayed.init(theta), theta)
    np.testing.assert_allclose(update_w["a"], update["a"] - 0.05, rtol=1e-5)


def test_two_buffers_in_f32():
    theta = {"a": jnp.ones(3, jnp.bfloat16)}
    rule = opt.scale_by_adax()
    u, state = rule.update(theta, rule.init(theta))
    assert u["a"].dtype == jnp.bfloat16
    assert [x.dtype for x in jax.tree.leaves(state) if x.ndim] == [jnp.float32] * 2


def test_zero_gradient():
    rule = opt.scale_by_adax()
    u, _ = rule.update(jnp.zeros(2), rule.init(jnp.zeros(2)))
    np.testing.assert_array_equal(u, 0)
    slope = jax.grad(lambda g: rule.update(g, rule.init(g))[0].sum())(jnp.zeros(2))
    np.testing.assert_allclose(slope, 0.1 / 1e-8, rtol=1e-5)


def test_injected_hyperparameters():
    g = jnp.array([1.0, -2.0])
    injected, plain = optax.inject_hyperparams(opt.adax)(0.1), opt.adax(0.1)
    state, plain_state = injected.init(g), plain.init(g)
    for _ in range(3):
        u, state = jax.jit(injected.update)(g, state, g)
        expected, plain_state = plain.update(g, plain_state, g)
        np.testing.assert_allclose(u, expected, rtol=1e-6)
