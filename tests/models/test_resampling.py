from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import (
    ConvDown,
    ConvUp,
    conv4x4_down,
    conv4x4_up,
    depth_to_space,
    space_to_depth,
)
from jaxgen.models.resampling import doublings

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def xla_down(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS
    )


def xla_up(x, kernel):
    """The transpose of the convolution with the roles of the channels exchanged."""
    b, h, w, _ = x.shape
    y = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda y: xla_down(y, kernel.swapaxes(2, 3)), y)(x)[0]


# Few channels in, few out: the two forms of each.
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 5), (3, 4), (9, 2)])
@pytest.mark.parametrize(
    ("ours", "reference", "size"), [(conv4x4_down, xla_down, 0.5), (conv4x4_up, xla_up, 2)]
)
def test_is_the_convolution_with_its_derivatives(ours, reference, size, inputs, outputs, x64):
    x, kernel = normal((2, 4, 6, inputs)), normal((4, 4, inputs, outputs), 1)
    dx, dkernel = normal(x.shape, 2), normal(kernel.shape, 3)
    dy = normal((2, int(4 * size), int(6 * size), outputs), 4)

    def numbers(conv):
        y, tangent = jax.jvp(conv, (x, kernel), (dx, dkernel))
        _, vjp = jax.vjp(conv, x, kernel)
        # As in a gradient penalty: the gradient of a gradient.
        twice = jax.grad(lambda k: jnp.sum(jax.grad(lambda x: (conv(x, k) ** 3).sum())(x) ** 2))
        return y, tangent, vjp(dy), twice(kernel)

    run = jax.jit(numbers, static_argnums=0)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), run(ours), run(reference)
    )


def test_a_peers_transposed_convolution():
    """One pixel of one spreads the kernel: y[i - 1, j - 1] = kernel[i, j] inside the image."""
    kernel = jnp.arange(16.0).reshape(4, 4, 1, 1)
    y = conv4x4_up(jnp.ones((1, 1, 1, 1)), kernel)
    np.testing.assert_array_equal(y[0, :, :, 0], kernel[1:3, 1:3, 0, 0])


@pytest.mark.parametrize(
    ("layer", "convolution", "shape"),
    [(ConvDown(3), xla_down, (4, 4, 2, 3)), (ConvUp(3), xla_up, (4, 4, 2, 3))],
)
def test_layers_add_a_bias_in_the_dtype_of_their_input(layer, convolution, shape):
    x = normal((2, 4, 6, 2)).astype(jnp.float32)
    params = layer.init(jax.random.key(0), x)
    assert params["params"]["kernel"].shape == shape
    params["params"]["bias"] = jnp.array([10.0, 20.0, 30.0])
    expected = convolution(x, params["params"]["kernel"]) + params["params"]["bias"].reshape(
        1, 1, 1, 3
    )
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-5, atol=1e-4)
    assert layer.apply(params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("layer", [ConvDown(64), ConvUp(64)])
def test_layers_start_at_twice_the_power_of_their_input(layer):
    x = normal((4, 16, 16, 64)).astype(jnp.float32)
    y = layer.apply(layer.init(jax.random.key(0), x), x)
    assert float(jnp.var(y[:, 2:-2, 2:-2])) == pytest.approx(2, rel=0.15)


def test_blocks_of_pixels_become_channels_and_come_back():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    z = space_to_depth(jnp.asarray(x))
    assert z.shape == (2, 2, 3, 12)
    for i in (0, 1):
        for j in (0, 1):
            np.testing.assert_array_equal(z[..., 3 * (2 * i + j) :][..., :3], x[:, i::2, j::2])
    np.testing.assert_array_equal(depth_to_space(z), x)


@pytest.mark.parametrize(
    ("shape", "count"), [((8, 8, 1), 1), ((28, 28, 1), 2), ((32, 32, 3), 3), ((64, 48, 3), 4)]
)
def test_doublings(shape, count):
    assert doublings(shape) == count


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: doublings((18, 18, 1)), r"shape \(18, 18, 1\); expected sides of"),
        (lambda: space_to_depth(jnp.ones((1, 3, 4, 2))), r"x \(1, 3, 4, 2\); .* even H and W"),
        (lambda: depth_to_space(jnp.ones((1, 3, 4, 6))), r"z \(1, 3, 4, 6\); .* 4C\]"),
        (lambda: conv4x4_down(jnp.ones((1, 3, 4, 2)), jnp.ones((4, 4, 2, 1))), "even H"),
        (
            lambda: conv4x4_down(jnp.ones((1, 4, 4, 2)), jnp.ones((4, 4, 3, 1))),
            r"kernel \(4, 4, 3, 1\)",
        ),
        (
            lambda: conv4x4_up(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))),
            r"kernel \(3, 3, 2, 1\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
