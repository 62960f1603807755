"""squeeze, flatten, multiscale, and the flows made of them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import flows
from jaxgen.models import Conv


def test_squeeze_order():
    # Channel c of pixel (h, w) is 100 h + 10 w + c.
    h, w, c = np.meshgrid(range(4), range(2), range(3), indexing="ij")
    x = jnp.asarray(100 * h + 10 * w + c, jnp.float32)[None]
    z, logdet = flows.squeeze().forward((), x)
    assert z.shape == (1, 2, 1, 12)
    block = [200, 201, 202, 210, 211, 212, 300, 301, 302, 310, 311, 312]
    np.testing.assert_array_equal(z[0, 1, 0], block)
    np.testing.assert_array_equal(logdet, [0.0])
    np.testing.assert_array_equal(flows.squeeze().inverse((), z)[0], x)


def test_flatten_keeps_the_order():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    z, logdet = flows.flatten((3, 4)).forward((), x)
    np.testing.assert_array_equal(z, np.arange(24.0).reshape(2, 12))
    np.testing.assert_array_equal(logdet, [0.0, 0.0])
    np.testing.assert_array_equal(flows.flatten((3, 4)).inverse((), z)[0], x)


def test_multiscale_sets_the_second_half_aside():
    x = jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]])
    flow = flows.multiscale(flows.reversal(), flows.reversal(), flows.scaling())
    params = ((), (), {"log_scale": jnp.log(jnp.array([10.0, 100.0]))})
    z, logdet = flow.forward(params, x)
    # 8..1 -> 8 7 6 5 | 4 3 2 1;  5 6 7 8 -> 5 6 | 7 8;  50 600
    for actual, expected in zip(z, ([[4, 3, 2, 1]], [[7, 8]], [[50, 600]]), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(logdet, [np.log(1000.0)], rtol=1e-6)
    np.testing.assert_allclose(flow.inverse(params, z)[0], x, rtol=1e-6)


def test_multiscale_initialises_each_level_on_what_reaches_it():
    x = 3 + 2 * jnp.asarray(np.random.default_rng(0).standard_normal((256, 4)), jnp.float32)
    flow = flows.multiscale(flows.reversal(), flows.actnorm())
    z = flow.forward(flow.init(jax.random.key(0), x), x)[0]
    np.testing.assert_array_equal(z[0], x[:, 1::-1])
    np.testing.assert_allclose(z[1].mean(0), np.zeros(2), atol=1e-4)
    np.testing.assert_allclose(z[1].std(0), np.ones(2), rtol=2e-3)


def latent_shapes(flow, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(flow.init, jax.random.key(0), x)
    z, logdet = jax.eval_shape(flow.forward, params, x)
    assert logdet.shape == shape[:1]
    return [leaf.shape for leaf in z]


def test_latents_of_glow_and_realnvp():
    assert latent_shapes(flows.glow(1, 1, 4), (3, 2, 4, 1)) == [(3, 1, 2, 4)]
    assert latent_shapes(flows.glow(2, 1, 4), (3, 8, 4, 3)) == [(3, 4, 2, 6), (3, 2, 1, 24)]
    assert latent_shapes(flows.realnvp(1, 1, 4, 0), (2, 3, 4, 3)) == [(2, 3, 4, 3)]
    assert latent_shapes(flows.realnvp(3, 1, 4, 0), (2, 8, 8, 3)) == [
        (2, 4, 4, 6),
        (2, 2, 2, 12),
        (2, 2, 2, 12),
    ]


def test_glow_ends_in_an_actnorm_that_has_seen_the_data():
    rng = np.random.default_rng(0)
    x = jnp.asarray(7 + 2 * rng.standard_normal((32, 4, 2, 3)), jnp.float32)
    flow = flows.glow(1, 2, 4)
    forward = jax.jit(flow.forward)
    params = jax.jit(flow.init)(jax.random.key(0), x)
    (z,), _ = forward(params, x)
    np.testing.assert_allclose(z.mean((0, 1, 2)), np.zeros(12), atol=1e-4)
    np.testing.assert_allclose(z.std((0, 1, 2)), np.ones(12), rtol=5e-3)
    ((steps, last),) = params
    (shifted,), _ = forward(((steps, {**last, "shift": last["shift"] + 1}),), x)
    np.testing.assert_allclose((shifted - z)[0, 0, 0], np.exp(last["log_scale"][0, 0]), rtol=1e-4)


def test_glow_sets_half_aside_with_a_gaussian_prior_given_the_other_half(x64, draw):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 4, 1)))
    flow = flows.glow(2, 1, 4, mixing=flows.shuffle())
    params = draw(flow, x)
    steps, prior = params[0]
    aside = jax.jit(flow.forward)(params, x)[0][0]
    # One level of the same steps, with a last actnorm that does nothing, shows what is cut.
    top = {"shift": jnp.zeros((1, 1, 4)), "log_scale": jnp.zeros((1, 1, 4))}
    level = flows.glow(1, 1, 4, mixing=flows.shuffle())
    (whole,), _ = jax.jit(level.forward)(((steps, top),), x)
    kept, moved = whole[..., :2], whole[..., 2:]
    shift, raw_scale = jnp.split(Conv(4).apply(prior, kept), 2, axis=-1)
    mean_and_std = moved * jnp.exp(2 * jnp.tanh(raw_scale / 2)) + shift
    np.testing.assert_allclose(aside, mean_and_std, rtol=1e-10)


def test_nice_is_reversed_even_odd_couplings_that_subtract():
    flow = flows.nice((5,), couplings=1)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    params = jax.jit(flow.init)(jax.random.key(0), x)
    z, logdet = map(np.asarray, flow.forward(params, x))
    flipped, scale = x[:, ::-1], np.exp(np.asarray(params[1]["log_scale"]))
    np.testing.assert_allclose(z[:, 0::2], flipped[:, 0::2] * scale[0::2], rtol=1e-5)
    change = flipped[:, 1::2] - z[:, 1::2] / scale[1::2]  # >= 0: the generator only ever adds
    assert change.min() > -1e-6
    assert change.max() > 0.1
    np.testing.assert_allclose(logdet, np.full(4, np.log(scale).sum()), rtol=1e-5)
