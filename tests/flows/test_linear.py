import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 3), (8, 5, 6, 3)])
def test_actnorm_init_normalises_every_channel(shape):
    x = normal(shape) * np.float32([0.1, 1.0, 30.0]) + np.float32([4.0, 0.0, -90.0])
    flow = flows.actnorm(eps=1e-6)
    z, _ = flow.forward(flow.init(jax.random.key(0), x), x)
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(z.mean(axes), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(z.std(axes), np.ones(3), rtol=1e-4)


def test_actnorm_scales_a_constant_channel_by_one_over_eps_at_most():
    x = np.stack([normal(50), np.full(50, 7, np.float32)], axis=1)
    flow = flows.actnorm(eps=1e-2)
    params = flow.init(jax.random.key(0), x)
    np.testing.assert_allclose(np.exp(params["log_scale"][1]), 100.0, rtol=1e-4)
    z, logdet = flow.forward(params, x)
    np.testing.assert_allclose(z[:, 1], np.zeros(50), atol=1e-5)
    assert np.isfinite(logdet).all() and np.isfinite(flow.inverse(params, z)[0]).all()


def test_actnorm_and_scaling_values():
    x = jnp.array([[[[1.0, -2.0]], [[3.0, 5.0]]]])  # two positions
    log_scale = jnp.array([0.5, -1.0])
    z, logdet = flows.actnorm().forward(
        {"shift": jnp.array([10.0, 20.0]), "log_scale": log_scale}, x
    )
    scale = np.exp([0.5, -1.0])
    np.testing.assert_allclose(z[0, :, 0], [[11, 18], [13, 25]] * scale, rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (0.5 - 1.0)], rtol=1e-6)
    z, logdet = flows.scaling().forward({"log_scale": log_scale}, x)
    np.testing.assert_allclose(z[0, :, 0], [[1, -2], [3, 5]] * scale, rtol=1e-6)
    np.testing.assert_allclose(logdet, [2 * (0.5 - 1.0)], rtol=1e-6)


def test_scaling_init_makes_every_standard_deviation_one_and_keeps_the_mean():
    x = normal((200, 3)) * np.float32([0.1, 1.0, 0.0]) + np.float32([4.0, 0.0, -9.0])
    flow = flows.scaling(eps=1e-4)
    params = flow.init(jax.random.key(0), x)
    z, _ = flow.forward(params, x)
    np.testing.assert_allclose(z.std(0)[:2], [1, 1], rtol=2e-3)
    mean, std = x[:, :2].mean(0), x[:, :2].std(0)
    np.testing.assert_allclose(z[:, :2].mean(0), mean / std, rtol=2e-3)  # it does not shift
    np.testing.assert_allclose(np.exp(params["log_scale"][2]), 1e4, rtol=1e-4)  # constant


def test_invertible_1x1_starts_as_a_rotation(x64):
    flow, eye = flows.invertible_1x1(), jnp.eye(5)
    params = flow.init(jax.random.key(3), eye)
    w, logdet = flow.forward(params, eye)
    np.testing.assert_allclose(w @ w.T, eye, atol=1e-12)
    np.testing.assert_allclose(logdet, np.zeros(5), atol=1e-12)
    assert np.abs(w - eye).max() > 0.1


def test_invertible_1x1_is_the_product_of_its_factors(x64, draw):
    flow, x = flows.invertible_1x1(), jnp.asarray(normal((4, 5)), jnp.float64)
    params = draw(flow, x)
    diagonal = np.diag(params["sign"].value * np.exp(params["log_s"]))
    w = (
        np.asarray(params["permutation"].value)
        @ (np.tril(params["lower"], -1) + np.eye(5))
        @ (np.triu(params["upper"], 1) + diagonal)
    )
    z, logdet = flow.forward(params, x)
    np.testing.assert_allclose(z, x @ w.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logdet, np.full(4, np.linalg.slogdet(w)[1]), rtol=1e-12)
    np.testing.assert_allclose(flow.inverse(params, x)[0], x @ np.linalg.inv(w).T, atol=1e-12)


def test_invertible_1x1_inverts_to_single_precision_on_many_channels():
    flow, x = flows.invertible_1x1(), normal((3, 96))
    params = flow.init(jax.random.key(0), x)
    z, _ = jax.jit(flow.forward)(params, x)
    np.testing.assert_allclose(jax.jit(flow.inverse)(params, z)[0], x, atol=2e-5)


def test_invertible_1x1_multiplies_in_full_precision():
    """A CPU always does; accelerators are asked to, in every product."""
    flow, x = flows.invertible_1x1(), normal((3, 4))
    params = flow.init(jax.random.key(0), x)
    for function, products in ((flow.forward, 3), (flow.inverse, 1)):
        jaxpr = str(jax.make_jaxpr(function)(params, x))
        assert jaxpr.count("dot_general") == products
        assert jaxpr.count("(Precision.HIGHEST, Precision.HIGHEST)") == products


def test_shuffle_moves_whole_channels_differently_in_every_layer():
    x = normal((2, 3, 8))
    params = flows.repeat(flows.shuffle(), 3).init(jax.random.key(0), x)
    orders = np.argmax(np.asarray(params["permutation"].value), axis=-1)
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        assert sorted(order) == list(range(8))
        layer = {"permutation": flows.Fixed(jnp.eye(8)[order])}
        z, logdet = flows.shuffle().forward(layer, x)
        np.testing.assert_allclose(z, x[..., order], rtol=1e-6)
        np.testing.assert_array_equal(logdet, np.zeros(2))


def test_permutation_and_reversal_values():
    x = jnp.array([[10.0, 11.0, 12.0]])
    z, logdet = flows.permutation([2, 0, 1]).forward((), x)
    np.testing.assert_array_equal(z, [[12.0, 10.0, 11.0]])
    np.testing.assert_array_equal(logdet, [0.0])
    np.testing.assert_array_equal(flows.permutation(np.array([2, 0, 1])).inverse((), z)[0], x)
    np.testing.assert_array_equal(flows.reversal().forward((), x)[0], [[12.0, 11.0, 10.0]])
