"""The convolutional conditioners: their start, their inputs, their dtype, ResNet's equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.flows import ConvNet, ResNet
from jaxgen.models import MLP


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("network", "context"),
    [
        (ConvNet(4, width=5), (2, 8, 12, 2)),
        (ResNet(4, width=5, blocks=2), (2, 4, 6, 3)),
    ],
)
def test_networks_start_at_zero_and_then_use_every_input(network, context):
    x, context = normal((2, 4, 6, 3)), normal(context, 1)
    params = jax.jit(network.init)(jax.random.key(0), x, context)
    y = jax.jit(network.apply)(params, x, context)
    np.testing.assert_array_equal(y, np.zeros((2, 4, 6, 4)))
    rng = np.random.default_rng(2)
    awake = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape, np.float32), params)
    gradient = jax.jit(jax.grad(lambda inputs: (network.apply(awake, *inputs) ** 2).sum()))
    for g in gradient((x, context)):
        assert (np.abs(g).reshape(2, -1, g.shape[-1]).max(1) > 0).all()


@pytest.mark.parametrize("network", [ConvNet(4, width=5), ResNet(4, width=5, blocks=1)])
def test_networks_compute_in_the_dtype_of_their_input(network):
    x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    params = jax.jit(network.init)(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(network.apply, params, x).dtype == jnp.bfloat16


def test_networks_are_as_wide_as_their_input(x64):
    """Of a flow in f64, the conditioners were f32, and its round trips no better than 1e-7."""
    x = np.random.default_rng(0).standard_normal((2, 2, 2, 3))
    for network, z in (
        (MLP(4, (5,)), x[:, 0, 0]),
        (ConvNet(4, width=5), x),
        (ResNet(4, width=5, blocks=1), x),
    ):
        for dtype in (jnp.dtype("float32"), jnp.dtype("float64")):
            params = jax.eval_shape(network.init, jax.random.key(0), z.astype(dtype))
            assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {dtype}
            assert jax.eval_shape(network.apply, params, z.astype(dtype)).dtype == dtype
    network, z = MLP(4, (5,)), x[:, 0, 0]
    first, last = (
        jax.jit(network.init)(jax.random.key(0), z)["params"][f"Dense_{i}"] for i in (0, 1)
    )
    hidden = np.maximum(z @ np.asarray(first["kernel"]), 0)
    actual = network.apply({"params": {"Dense_0": first, "Dense_1": last}}, z)
    np.testing.assert_allclose(actual, hidden @ np.asarray(last["kernel"]), rtol=1e-13)


def test_networks_take_integers_as_floats():
    x = np.random.default_rng(0).integers(-2, 3, (2, 2, 2, 3))
    for network, z in ((MLP(4, (5,)), x[:, 0, 0]), (ResNet(4, width=5, blocks=0), x)):
        params = jax.jit(network.init)(jax.random.key(0), z)
        params = jax.tree.map(lambda p: p + 0.3, params)
        apply = jax.jit(network.apply)
        np.testing.assert_array_equal(apply(params, z), apply(params, z.astype(np.float32)))


def test_resnet_without_blocks_is_two_convolutions():
    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = normal((1, 3, 3, 2))
    network = ResNet(1, width=4, blocks=0)
    params = jax.jit(network.init)(jax.random.key(0), x)
    assert sorted(params["params"]) == ["Conv_0", "Conv_1"]
    params["params"]["Conv_1"]["kernel"] = jnp.ones((3, 3, 4, 1))
    hidden = np.maximum(convolution(x, params["params"]["Conv_0"]["kernel"]), 0)
    expected = convolution(jnp.asarray(hidden), jnp.ones((3, 3, 4, 1)))
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-5)
