from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgen import flows
from jaxgen.models import MLP

LEVELS = [2, 17, 256]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32])
def test_quantize_undoes_dequantize(levels, dtype):
    x = jnp.tile(jnp.arange(levels), (200, 1)).astype(dtype)
    y, logdet = jax.jit(flows.dequantize, static_argnums=2)(jax.random.key(0), x, levels)
    assert y.dtype == logdet.dtype == jnp.float32
    assert y.min() >= 0 and y.max() < 1
    np.testing.assert_array_equal(flows.quantize(y, levels), x)
    assert flows.quantize(y, levels).dtype == jnp.int32
    np.testing.assert_allclose(logdet, np.full(200, -levels * np.log(levels)), rtol=1e-6)


@pytest.mark.parametrize("levels", [*LEVELS, 100, 65536])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.5, 1 - 2.0**-23, 1 - 2.0**-24])
def test_no_noise_leaves_its_bin(levels, noise, monkeypatch):
    """The least and the greatest noise that f32 can draw: 200 + 0.9999999 rounds to 201."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, noise))
    x = jnp.arange(levels)[None]
    y, _ = flows.dequantize(jax.random.key(0), x, levels)
    assert y.min() >= 0 and y.max() < 1
    np.testing.assert_array_equal(flows.quantize(y, levels), x)
    assert np.isfinite(flows.logit(1e-6).forward((), y)[0]).all()


def test_noise_is_uniform_in_every_bin():
    x = jnp.tile(jnp.array([0, 3]), (20_000, 1))
    y, _ = flows.dequantize(jax.random.key(1), x, 4)
    u = np.asarray(4 * y - x)
    np.testing.assert_allclose(u.mean(0), [0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(u.var(0), [1 / 12, 1 / 12], atol=0.003)
    assert abs(np.corrcoef(u.T)[0, 1]) < 0.03
    other, _ = flows.dequantize(jax.random.key(2), x, 4)
    assert np.abs(other - y).max() > 0.1


@settings(max_examples=200, deadline=None)
@given(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([2, 3, 17, 256]),
)
def test_quantize_is_the_clipped_floor(y, levels):
    pixel = int(flows.quantize(jnp.float32([y]), levels)[0])
    assert 0 <= pixel <= levels - 1
    if 0 <= y < 1:
        assert pixel == int(np.floor(np.float32(y) * np.float32(levels)).clip(0, levels - 1))
    else:
        assert pixel == (0 if y < 0 else levels - 1)


@pytest.mark.parametrize("size", [-100.0, 0.0, 100.0])
def test_variational_noise_stays_in_its_bin_however_large(size):
    """A sigmoid of 20 is 1 in f32."""
    shift = flows.actnorm()
    params = {"shift": jnp.full(256, size), "log_scale": jnp.zeros(256)}
    x = jnp.arange(256)[None]
    y, logdet = flows.variational_dequantize(shift, params, jax.random.key(0), x)
    np.testing.assert_array_equal(flows.quantize(y), x)
    assert np.isfinite(logdet).all()


def test_variational_logdet_is_minus_log_q():
    """With f = exp(k) eps, u = sigmoid(f): log q by the change of variables, in numpy."""
    x, k = np.array([[0, 2, 1], [2, 2, 0]]), np.array([0.3, -0.5, 1.0])
    y, logdet = flows.variational_dequantize(
        flows.scaling(), {"log_scale": jnp.asarray(k)}, jax.random.key(0), x, 3
    )
    u = 3 * np.asarray(y, np.float64) - x
    assert u.min() > 0 and u.max() < 1
    eps = np.log(u / (1 - u)) / np.exp(k)
    log_q = -0.5 * (eps**2 + np.log(2 * np.pi)) - k - np.log(u * (1 - u))
    np.testing.assert_allclose(logdet, -log_q.sum(1) - 3 * np.log(3), rtol=1e-4)


def test_variational_noise_is_conditioned_on_the_image(draw):
    x = jnp.array([[0, 2, 1, 1], [2, 2, 0, 1]])
    flow = flows.coupling(partial(MLP, hidden=(8,)), flows.affine())
    params = draw(flow, x * 1.0, x * 1.0)

    def noise(x):
        y, _ = flows.variational_dequantize(flow, params, jax.random.key(0), x, 3)
        return 3 * y - x

    changed = np.abs(noise(x) - noise(x.at[0, 0].set(1)))
    assert changed[0, 2:].max() > 1e-3
    np.testing.assert_array_equal(changed[1], np.zeros(4))


def test_logit_values(x64):
    x = np.array([[0.0, 0.25, 1.0]])
    p = 0.05 + 0.9 * x
    z, logdet = flows.logit(0.05).forward((), x)
    np.testing.assert_allclose(z, np.log(p / (1 - p)), rtol=1e-12)
    np.testing.assert_allclose(logdet, np.log(0.9 / (p * (1 - p))).sum(1), rtol=1e-12)
    np.testing.assert_allclose(flows.logit(0.05).inverse((), z)[0], x, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.3])
def test_logit_of_its_own_extremes_is_the_largest_number_it_resolves(alpha, dtype):
    """17 came back as infinity in f32, -17 as NaN."""
    flow = flows.logit(alpha)
    z = jnp.array([[-1e4, -25, -17, -8, 0, 5, 17, 25, 1e4]], dtype)
    x, _ = flow.inverse((), z)
    back, logdet = map(np.asarray, flow.forward((), x))
    assert np.isfinite(logdet).all()
    assert np.abs(back[0]).max() <= np.log(2.0**24) + 0.1
    tolerance = 5e-3 if dtype == jnp.float32 else 0.2
    np.testing.assert_allclose(back[0, 4:6].astype(float), [0, 5], atol=tolerance)
    assert (np.diff(back[0].astype(float)) >= 0).all()
    slope = jax.grad(lambda x: flow.forward((), x)[0].sum())(x)
    assert (np.asarray(slope, float) > 1).all() and np.isfinite(np.asarray(slope, float)).all()


def test_logit_outside_its_domain_is_nan():
    x = jnp.array([[-0.06, 0.5, 1.06, jnp.nan]])  # of [-1/18, 19/18]
    z, logdet = flows.logit(0.05).forward((), x)
    np.testing.assert_array_equal(np.isnan(z), [[True, False, True, True]])
    assert np.isnan(logdet).all()


def test_five_bit_images_are_right_in_eight_bits_of_memory():
    x = jnp.array([[0, 5, 31]], jnp.uint8)
    y, _ = flows.dequantize(jax.random.key(0), x, 32)
    np.testing.assert_array_equal(flows.quantize(y, 32), x)
