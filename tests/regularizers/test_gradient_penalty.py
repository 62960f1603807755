"""Gradient penalties at critics whose slope is known, and their second-order gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import regularizers as r

PENALTIES = {  # as functions of the slope
    "one_centered": (r.one_centered_gradient_penalty, lambda n: (n - 1) ** 2),
    "one_sided": (r.one_sided_gradient_penalty, lambda n: max(n - 1, 0) ** 2),
    "zero_centered": (r.zero_centered_gradient_penalty, lambda n: n**2),
    "power_2": (lambda f, x: r.gradient_power_penalty(f, x, 2), lambda n: n**2),
    "power_3": (lambda f, x: r.gradient_power_penalty(f, x, 3), lambda n: n**3),
    "power_6": (r.gradient_power_penalty, lambda n: n**6),
}
each_penalty = pytest.mark.parametrize("name", PENALTIES)


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def linear(a):
    return lambda x: x.reshape(len(x), -1) @ a + 3


def network(params, x):
    hidden = jnp.tanh(x.reshape(len(x), -1) @ params["in"] + params["bias"][None])
    return hidden @ params["out"]


@each_penalty
@pytest.mark.parametrize("slope", [0.5, 3.0])
def test_linear_critic(x64, name, slope):
    a = draw(12)
    a *= slope / np.linalg.norm(a)
    penalty, expected = PENALTIES[name]
    values = penalty(linear(a), draw((5, 2, 3, 2)))
    np.testing.assert_allclose(values, np.full(5, expected(slope)), atol=1e-14)


@each_penalty
def test_quadratic_critic_has_a_slope_per_example(x64, name):
    x = draw((4, 3, 2))
    penalty, expected = PENALTIES[name]
    values = penalty(lambda x: 0.5 * jnp.sum(x**2, axis=(1, 2)), x)
    slopes = np.linalg.norm(x.reshape(4, -1), axis=1)
    np.testing.assert_allclose(values, [expected(n) for n in slopes])
    assert values.shape == (4,)


@each_penalty
def test_gradients_of_the_critics_parameters_are_finite_differences(x64, name):
    params = {"in": 2 * draw((4, 5)), "bias": draw(5, 1), "out": draw(5, 2)}
    along = {"in": draw((4, 5), 3), "bias": draw(5, 4), "out": draw(5, 5)}
    x = draw((3, 4), 6)

    def total(params):
        return jnp.mean(PENALTIES[name][0](lambda x: network(params, x), x))

    def moved(h):
        return total(jax.tree.map(lambda p, a: p + h * a, params, along))

    gradient = jax.grad(total)(params)
    directional = sum(np.sum(gradient[k] * along[k]) for k in params)
    assert abs(directional) > 1e-3
    np.testing.assert_allclose(directional, (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-6)


@each_penalty
def test_gradient_is_zero_or_finite_at_a_flat_critic(name):
    params = {"in": np.zeros((4, 5)), "bias": np.zeros(5), "out": np.zeros(5)}
    params = jax.tree.map(jnp.float32, params)

    def total(params, x):
        return jnp.mean(PENALTIES[name][0](lambda x: network(params, x), x))

    for gradient in jax.tree.leaves(jax.grad(total, (0, 1))(params, jnp.ones((2, 4)))):
        np.testing.assert_array_equal(gradient, 0)


@each_penalty
def test_nan_stays_nan(name):
    assert np.isnan(PENALTIES[name][0](linear(jnp.full(3, jnp.nan)), jnp.ones((2, 3)))).all()


def test_elementwise_powers_are_another_norm(x64):
    a = draw(6)
    value = r.gradient_power_penalty(linear(a), draw((2, 6)), 6)
    np.testing.assert_allclose(value, np.full(2, np.linalg.norm(a) ** 6))
    assert value[0] > 10 * np.mean(np.abs(a) ** 6), "what elementwise powers would give"


def test_half_precision_points_are_summed_in_f32():
    a = jnp.full(4096, 0.01, jnp.bfloat16)
    value = r.zero_centered_gradient_penalty(lambda x: x @ a, jnp.ones((1, 4096), jnp.bfloat16))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [4096 * float(a[0]) ** 2], rtol=1e-5)
