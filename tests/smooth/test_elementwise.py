"""Smooth relu, abs, step, sign, floor, round and norm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy import integrate

from jaxgen import smooth

FUNCTIONS = (
    smooth.smooth_relu,
    smooth.smooth_abs,
    smooth.charbonnier,
    smooth.smooth_heaviside,
    smooth.smooth_sign,
    smooth.smooth_floor,
    smooth.smooth_round,
)
GRID = np.linspace(-3.3, 3.2, 53).astype(np.float32)


def slope(f, **kw):
    return jax.vmap(jax.grad(partial(f, **kw)))


@pytest.mark.parametrize("tau", [0.05, 1.0, 20.0])
def test_values(tau):
    x = GRID.astype(np.float64)
    expected = {
        smooth.smooth_relu: tau * np.logaddexp(x / tau, 0),
        smooth.smooth_abs: tau * (np.logaddexp(x / tau, -x / tau) - np.log(2)),
        smooth.charbonnier: np.sqrt(x**2 + tau**2) - tau,
        smooth.smooth_heaviside: 1 / (1 + np.exp(-x / tau)),
        smooth.smooth_sign: np.tanh(x / tau),
    }
    for f, value in expected.items():
        np.testing.assert_allclose(f(GRID, temperature=tau), value, rtol=1e-5, atol=1e-5)


def test_peers():
    np.testing.assert_allclose(smooth.smooth_abs(GRID), optax.log_cosh(GRID), atol=1e-6)
    np.testing.assert_allclose(
        slope(smooth.smooth_relu, temperature=0.5)(GRID),
        smooth.smooth_heaviside(GRID, temperature=0.5),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        slope(smooth.smooth_abs, temperature=0.5)(GRID),
        smooth.smooth_sign(GRID, temperature=0.5),
        rtol=1e-5,
        atol=1e-6,
    )


def test_cold_functions_are_hard():
    hard = {
        smooth.smooth_relu: np.maximum(GRID, 0),
        smooth.smooth_abs: np.abs(GRID),
        smooth.charbonnier: np.abs(GRID),
        smooth.smooth_heaviside: np.heaviside(GRID, 0.5),
        smooth.smooth_sign: np.sign(GRID),
        smooth.smooth_floor: np.floor(GRID),
        smooth.smooth_round: np.round(GRID),
    }
    for f, value in hard.items():
        np.testing.assert_allclose(f(GRID, temperature=1e-6), value, atol=1e-4)


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e6])
def test_gradients_are_finite(f, temperature):
    x = jnp.array([0.0, -0.0, 0.5, 1.0, -1.0, 1e-30, 1e4, -1e4, 1e20, -1e30])
    assert np.isfinite(f(x, temperature=temperature)).all()
    assert np.isfinite(slope(f, temperature=temperature)(x)).all()


def test_gradients(x64):
    x = GRID.astype(np.float64)
    together = jax.jit(lambda x, t: [f(x, temperature=t) for f in FUNCTIONS])
    check_grads(together, (x, 0.7), order=2, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("w", [0.01, 0.1, 1.0])
def test_floor_and_round_are_the_poisson_kernel_forms(w):
    x, r = GRID.astype(np.float64), np.exp(-2 * np.pi * w)
    angle = 2 * np.pi * x
    floor = x - 0.5 + np.arctan2(r * np.sin(angle), 1 - r * np.cos(angle)) / np.pi
    rounded = x + np.arctan2(-r * np.sin(angle), 1 + r * np.cos(angle)) / np.pi
    np.testing.assert_allclose(smooth.smooth_floor(GRID, temperature=w), floor, atol=1e-5)
    np.testing.assert_allclose(smooth.smooth_round(GRID, temperature=w), rounded, atol=1e-5)
    kernel = (1 - r**2) / (1 - 2 * r * np.cos(angle) + r**2)
    np.testing.assert_allclose(slope(smooth.smooth_floor, temperature=w)(GRID), kernel, rtol=1e-3)


def test_floor_is_a_convolution_with_a_cauchy_density(x64):
    w, x = 0.2, 0.3
    density = lambda y: w / (np.pi * (w**2 + (x - y) ** 2))  # noqa: E731
    # floor(y) - y is bounded, so the tails of the integral of it vanish.
    bounded = sum(
        integrate.quad(lambda y, k=k: (k - y + 0.5) * density(y), k, k + 1)[0]
        for k in range(-500, 500)
    )
    np.testing.assert_allclose(smooth.smooth_floor(x, temperature=w), x - 0.5 + bounded, atol=1e-6)


@pytest.mark.parametrize("f", [smooth.smooth_floor, smooth.smooth_round])
@pytest.mark.parametrize("temperature", [1e-3, 0.05, 0.5, 10.0])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_slopes_of_floor_and_round_are_positive_with_mean_1(f, temperature, shift):
    n = 20000
    x = shift + (jnp.arange(n) + 0.5) / n
    slopes = np.asarray(slope(f, temperature=temperature)(x), np.float64)
    assert slopes.min() > 0
    np.testing.assert_allclose(slopes.mean(), 1, rtol=1e-2 if shift else 1e-4)
    rise = f(shift + 1.25, temperature=temperature) - f(shift + 0.25, temperature=temperature)
    np.testing.assert_allclose(rise, 1, atol=1e-3 if shift else 1e-6)


def test_warm_floor_and_round_are_lines():
    np.testing.assert_allclose(smooth.smooth_floor(GRID, temperature=1e3), GRID - 0.5, atol=1e-6)
    np.testing.assert_allclose(smooth.smooth_round(GRID, temperature=1e3), GRID, atol=1e-6)


def test_floor_and_round_of_large_numbers():
    x = jnp.array([2.0**22 + 0.5, -(2.0**22) - 0.5, 2.0**30, -1e30])
    np.testing.assert_allclose(smooth.smooth_round(x[2:], temperature=0.01), x[2:])
    np.testing.assert_allclose(smooth.smooth_floor(x, temperature=1e-4), np.floor(x), atol=0.5)
    assert smooth.smooth_floor(100.3, temperature=1e-9) == 100


def test_norm():
    x = jnp.asarray(GRID[:12].reshape(3, 4))
    norm = np.linalg.norm(GRID[:12].reshape(3, 4), axis=-1)
    np.testing.assert_allclose(smooth.smooth_norm(x), norm, rtol=1e-6)
    np.testing.assert_allclose(
        smooth.smooth_norm(x, temperature=2.0), np.sqrt(norm**2 + 4), rtol=1e-6
    )
    np.testing.assert_allclose(smooth.smooth_norm(x, axis=None), np.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose(smooth.smooth_norm(x, axis=(0, 1)), np.linalg.norm(x), rtol=1e-6)
    mask = jnp.array([True, False, True, True])
    masked = smooth.smooth_norm(jnp.where(mask, x, jnp.nan), where=mask)
    np.testing.assert_allclose(masked, np.linalg.norm(x[:, mask], axis=-1), rtol=1e-6)


def test_gradient_of_norm(x64):
    x = GRID[:12].astype(np.float64).reshape(3, 4)
    f = jax.jit(partial(smooth.smooth_norm, temperature=0.3))
    check_grads(f, (x,), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_norm_at_nasty_points():
    for x in (jnp.zeros(3), jnp.full(3, 1e30), jnp.full(3, 1e-30), jnp.array([0.0, 3e38, 0.0])):
        value, grad = jax.value_and_grad(smooth.smooth_norm)(x)
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
    np.testing.assert_array_equal(jax.grad(smooth.smooth_norm)(jnp.zeros(3)), 0)
    np.testing.assert_allclose(smooth.smooth_norm(jnp.full(4, 1e30)), 2e30, rtol=1e-6)
    nothing = smooth.smooth_norm(jnp.ones(3), temperature=0.5, where=jnp.zeros(3, bool))
    np.testing.assert_allclose(nothing, 0.5)
