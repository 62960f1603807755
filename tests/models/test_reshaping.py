from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import SqueezeDecoder, SqueezeEncoder

SHAPE = (2, 8, 12, 3)


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def awake(network, x):
    """Random parameters, for at its start every block is the identity."""
    rng = np.random.default_rng(1)
    params = jax.jit(network.init)(jax.random.key(0), x)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)


def blocks_to_channels(x):
    """By the definition, pixel by pixel."""
    rows = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(rows, axis=-1)


def conv(x, kernel, bias):
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    numbers = ("NHWC", "HWIO", "NHWC")
    return (
        jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers) + bias
    )


def test_the_pair_keeps_the_number_of_values_and_starts_as_the_identity():
    x = normal(SHAPE)
    encoder, decoder = SqueezeEncoder(2, 3, width=4), SqueezeDecoder(2, 3, width=4)
    z, _ = jax.jit(encoder.init_with_output)(jax.random.key(0), x)
    assert z.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(z, blocks_to_channels(blocks_to_channels(x)))
    y, _ = jax.jit(decoder.init_with_output)(jax.random.key(0), z)
    np.testing.assert_array_equal(y, x)


def test_blocks_are_residual_in_the_order_of_the_depth(exact_products):
    x = normal(SHAPE)
    network = SqueezeEncoder(1, 2, width=4)
    params = awake(network, x)
    (stage,) = params["params"].values()
    expected = blocks_to_channels(x)
    first, second = stage["Conv_0"], stage["Conv_1"]
    for i in range(2):
        h = conv(expected, first["kernel"][i], first["bias"][i].reshape(1, 1, 1, -1))
        h = conv(jnp.maximum(h, 0), second["kernel"][i], second["bias"][i].reshape(1, 1, 1, -1))
        expected = expected + h
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), expected, rtol=1e-4, atol=1e-4)


def test_the_blocks_of_a_stage_start_different():
    (stage,) = jax.jit(SqueezeEncoder(1, 2, 4).init)(jax.random.key(0), normal(SHAPE))[
        "params"
    ].values()
    kernels = stage["Conv_0"]["kernel"]
    assert kernels.shape == (2, 3, 3, 12, 4)
    assert float(jnp.abs(kernels[0] - kernels[1]).min()) > 0
    assert float(jnp.std(kernels)) == pytest.approx((2 / (9 * 12)) ** 0.5, rel=0.1)


def test_the_decoder_mirrors_the_encoder():
    """Stage by stage the same shapes in the reverse order."""
    x = normal(SHAPE)
    encoder, decoder = SqueezeEncoder(2, 1, width=4), SqueezeDecoder(2, 1, width=4)
    z, down = jax.eval_shape(encoder.init_with_output, jax.random.key(0), x)
    up = jax.eval_shape(decoder.init, jax.random.key(0), z)
    ways = [[jax.tree.map(jnp.shape, stage) for stage in p["params"].values()] for p in (down, up)]
    assert ways[0] == ways[1][::-1]
    assert len(ways[0]) == 2


@pytest.mark.parametrize("norm", [None, partial(nn.GroupNorm, num_groups=2)])
@pytest.mark.parametrize("network", [SqueezeEncoder, SqueezeDecoder])
def test_every_example_by_itself_in_its_dtype(network, norm):
    x = normal((3, 4, 4, 4))
    network = network(1, 2, width=4, norm=norm)
    params = awake(network, x)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(network.apply(params, x)[1]))))(x)
    assert float(jnp.abs(gradient[1]).min()) > 0
    np.testing.assert_array_equal(gradient[jnp.array([0, 2])], 0)
    low = jax.eval_shape(network.apply, params, x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    assert jax.eval_shape(network.apply, params, jnp.ones(x.shape, jnp.uint8)).dtype == jnp.float32


def test_batch_statistics_have_a_place():
    x = normal(SHAPE)
    network = SqueezeEncoder(1, 2, 4, norm=partial(nn.BatchNorm, use_running_average=False))
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    (stage,) = variables["batch_stats"].values()
    assert stage["BatchNorm_0"]["mean"].shape == (2, 4)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (SqueezeEncoder(2), (1, 6, 8, 1), r"x \(1, 3, 4, 4\); expected .* even H and W"),
        (SqueezeEncoder(1), (8, 8, 1), r"x \(8, 8, 1\); expected \[B, H, W, C\]"),
        (SqueezeDecoder(2), (1, 2, 2, 12), r"z \(1, 4, 4, 3\); expected \[B, H, W, 4C\]"),
    ],
)
def test_sizes_that_do_not_halve(network, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.ones(shape))
