from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import Conv, conv3x3, pointwise


def xla(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


# Fewer channels in than out, as many, more: the two forms.
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 5), (3, 3), (5, 2)])
def test_conv3x3_is_a_convolution_with_its_derivatives(inputs, outputs, x64):
    x, kernel = normal((2, 4, 5, inputs)), normal((3, 3, inputs, outputs), 1)
    dx, dkernel, dy = normal(x.shape, 2), normal(kernel.shape, 3), normal((2, 4, 5, outputs), 4)

    def numbers(conv):
        y, tangent = jax.jvp(conv, (x, kernel), (dx, dkernel))
        _, vjp = jax.vjp(conv, x, kernel)
        stacked = jnp.stack([kernel, 2 * kernel + 1])
        return y, tangent, vjp(dy), jax.vmap(conv, (None, 0))(x, stacked)

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10),
        jax.jit(numbers, static_argnums=0)(conv3x3),
        jax.jit(numbers, static_argnums=0)(xla),
    )


def test_conv3x3_orientation():
    """A kernel with a one at its top left reads the neighbour above and to the left."""
    x = jnp.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)
    np.testing.assert_array_equal(conv3x3(x, kernel)[0, :, :, 0], [[0, 0, 0], [0, 1, 2]])


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 5, 4)])
def test_pointwise_is_a_matrix_product_on_the_last_axis(shape, exact_products):
    x, kernel = normal(shape), normal((4, 3), 1)
    expected = np.einsum("...i,io->...o", x, kernel)
    np.testing.assert_allclose(pointwise(x, kernel), expected, rtol=1e-5, atol=1e-5)


def test_pointwise_has_the_derivatives_of_a_matrix_product(x64):
    """Of first and second order in both modes, and of a batch of kernels."""
    x, kernel = normal((2, 3, 4)), normal((4, 5), 1)

    def numbers(product):
        def curved(x, kernel):
            return jnp.sin(product(x, kernel)).sum()

        stacked = jnp.stack([kernel, 2 * kernel + 1])
        return (
            jax.jacfwd(product, (0, 1))(x, kernel),
            jax.jacrev(product, (0, 1))(x, kernel),
            jax.hessian(curved, (0, 1))(x, kernel),
            jax.jacrev(jax.grad(curved, (0, 1)), (0, 1))(x, kernel),
            jax.vmap(jax.grad(curved, 1), (None, 0))(x, stacked),
        )

    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12),
        jax.jit(numbers, static_argnums=0)(pointwise),
        jax.jit(numbers, static_argnums=0)(jnp.matmul),
    )


def test_conv_is_linear_in_what_it_says_with_a_bias():
    x = normal((2, 4, 5, 3)).astype(jnp.float32)
    for size in (1, 3):
        layer = Conv(2, size=size)
        params = layer.init(jax.random.key(0), x)
        kernel = params["params"]["kernel"]
        assert kernel.shape == (size, size, 3, 2)
        params["params"]["bias"] = jnp.array([10.0, 20.0])
        expected = xla(x, kernel) + jnp.array([10.0, 20.0]).reshape(1, 1, 1, 2)
        np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("context", [None, (2, 3), (2, 4, 6, 3), (2, 8, 12, 2)])
def test_conv_starts_at_zero_if_asked_and_then_uses_every_input(context):
    network = Conv(4, zero=True)
    x = normal((2, 4, 6, 3)).astype(jnp.float32)
    context = None if context is None else normal(context, 1).astype(jnp.float32)
    params = jax.jit(network.init)(jax.random.key(0), x, context)
    apply = jax.jit(network.apply)
    y = apply(params, x, context)
    assert y.shape == (2, 4, 6, 4)
    np.testing.assert_array_equal(y, np.zeros(y.shape))
    rng = np.random.default_rng(2)
    awake = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape, np.float32), params)
    gradient = jax.jit(jax.grad(lambda inputs: (network.apply(awake, *inputs) ** 2).sum()))
    inputs = gradient((x, context))
    for g in jax.tree.leaves(inputs):
        assert (np.abs(g).reshape(2, -1, g.shape[-1]).max(1) > 0).all()
    # A context image is read where it lies: far away it changes nothing.
    if context is not None and context.ndim == 4:
        far = apply(awake, x, context.at[:, -1, -1].add(1.0)) - apply(awake, x, context)
        assert np.abs(far[:, -1, -1]).max() > 1e-3
        np.testing.assert_array_equal(far[:, :2], np.zeros_like(far[:, :2]))


def test_conv_computes_in_the_dtype_of_its_input():
    x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    params = jax.jit(Conv(4).init)(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(Conv(4).apply, params, x).dtype == jnp.bfloat16
