"""The convolutional conditioners: their start, their inputs, their dtype, ResNet's equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.flows import ConvNet, ResNet


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
