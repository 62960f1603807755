"""The bounds of vae and f_vae, written out in numpy, and the map of the latents."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import f_vae, vae
from experiments.lib.errors import UserError
from jaxgen import flows
from jaxgen.models import ConvEncoder, SqueezeDecoder, SqueezeEncoder

SHAPE = (8, 8, 1)
LOG_2PI = math.log(2 * math.pi)


def images(count=6):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(count, *SHAPE)), jnp.float32)


def moved(params):
    """Away from a start at which networks are zero and both deviations related."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)


def squares(x):
    return np.sum(np.square(np.asarray(x, np.float64)), axis=tuple(range(1, x.ndim)))


def test_the_bound_of_the_vae(exact_products):
    x, key = 3 * images(), jax.random.key(3)
    model = vae.vae(3, 4, SHAPE, -7.0)
    params = jax.jit(model.init)(jax.random.key(0), x)
    assert float(params["log_std"]) == pytest.approx(math.log(np.std(x)), abs=1e-5)
    params = moved(params) | {"log_std": jnp.float32(-3.9)}
    mean, log_std = np.split(
        np.asarray(ConvEncoder(6, 4).apply(params["encoder"], np.tanh(x / 2)), np.float64), 2, 1
    )
    np.testing.assert_allclose(model.encode(params, x), mean, atol=1e-5)
    z = mean + np.exp(log_std) * jax.random.normal(key, mean.shape)
    s = math.exp(-3.9) + math.exp(-7)
    error = squares(x - model.decode(params, jnp.asarray(z, jnp.float32)))
    likelihood = -error / (2 * s**2) - 32 * LOG_2PI - 64 * math.log(s)
    kl = np.sum(np.exp(2 * log_std) + np.square(mean) - 1 - 2 * log_std, axis=1) / 2
    np.testing.assert_allclose(jax.jit(model.bound)(params, key, x), likelihood - kl, rtol=1e-3)


def test_the_bound_of_the_f_vae(exact_products):
    """As in the reference: no Jacobian of the encoder, that of F at h."""
    x, key = 3 * images(), jax.random.key(3)
    encoder, decoder = SqueezeEncoder(1, 1, 4), SqueezeDecoder(1, 1, 4)
    flow = flows.glow(1, 1, 8)
    model = f_vae.f_vae(encoder, decoder, flow, -7.0)
    params = moved(jax.jit(model.init)(jax.random.key(0), x))
    params |= {"log_s1": jnp.float32(-1.0), "log_s2": jnp.float32(-2.0)}
    e = encoder.apply(params["encoder"], x)
    u = jax.random.normal(key, e.shape)
    h = e + math.exp(-1) * u
    (w,), logdet = flow.forward(params["flow"], h)
    s2 = math.exp(-2) + math.exp(-7)
    error = squares(decoder.apply(params["decoder"], h) - x)
    loss = error / (2 * s2**2) + 32 * LOG_2PI + 64 * math.log(s2)
    loss += squares(w) / 2 - logdet - 64 * -1.0 - squares(u) / 2
    np.testing.assert_allclose(-jax.jit(model.bound)(params, key, x), loss, rtol=1e-3)
    # Latents without noise are F(E(x)), and come back as G(E(x)).
    (z,) = model.encode(params, x)
    np.testing.assert_allclose(z, flow.forward(params["flow"], e)[0][0], atol=1e-5)
    again = decoder.apply(params["decoder"], e)
    np.testing.assert_allclose(model.decode(params, (z,)), again, atol=1e-4)


@pytest.mark.parametrize("module", [vae, f_vae])
def test_sizes_that_do_not_fit_are_an_error_of_one_line(module, tmp_path):
    image = np.zeros((20, 18, 18, 1), np.uint8)
    np.savez(tmp_path / "odd.npz", images=image)
    config = dataclasses.replace(module.SMOKE, data="npz", data_dir=str(tmp_path / "odd.npz"))
    with pytest.raises(UserError, match="18") as error:
        module.build(config)
    assert "\n" not in str(error.value)
