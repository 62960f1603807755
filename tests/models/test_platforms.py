"""The form of a convolution follows the platform that a program is lowered for.

The reference is the plain definition without the choice, which JAX differentiates itself.
"""

import collections
import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import Conv, conv3x3, conv4x4_down, conv4x4_up, cpu, pointwise

CONVOLUTIONS = {
    "pointwise": (pointwise, cpu.pointwise, (2, 4, 6, 3), (3, 5)),
    "conv3x3": (conv3x3, cpu.conv3x3, (2, 4, 6, 3), (3, 3, 3, 5)),
    "conv3x3-narrowing": (conv3x3, cpu.conv3x3, (2, 4, 6, 5), (3, 3, 5, 2)),
    "conv4x4_down": (conv4x4_down, cpu.conv4x4_down, (2, 4, 6, 3), (4, 4, 3, 5)),
    "conv4x4_down-widening": (conv4x4_down, cpu.conv4x4_down, (2, 4, 6, 1), (4, 4, 1, 5)),
    "conv4x4_up": (conv4x4_up, cpu.conv4x4_up, (2, 4, 6, 3), (4, 4, 3, 5)),
    "conv4x4_up-narrowing": (conv4x4_up, cpu.conv4x4_up, (2, 4, 6, 8), (4, 4, 8, 1)),
}
NAMES = [name for name in CONVOLUTIONS if "-" not in name]
BOTH = (0, 1)


def value(convolution, x, kernel):
    return convolution(x, kernel)


def loss(convolution, x, kernel):
    return jnp.sum(jnp.sin(convolution(x, kernel)))


def gradient(convolution, x, kernel):
    return jax.grad(partial(loss, convolution), BOTH)(x, kernel)


def penalty(convolution, x, kernel):
    return jnp.sum(gradient(convolution, x, kernel)[0] ** 2)


def gradient_of_penalty(convolution, x, kernel):
    return jax.grad(partial(penalty, convolution), BOTH)(x, kernel)


def tangent_of_gradient(convolution, x, kernel):
    return jax.jvp(partial(gradient, convolution), (x, kernel), (x + 1, kernel - 1))[1]


def gradient_of_tangent(convolution, x, kernel):
    def tangent(x, kernel):
        return jax.jvp(partial(loss, convolution), (x, kernel), (jnp.cos(x), kernel + 1))[1]

    return jax.grad(tangent, BOTH)(x, kernel)


def penalties_of_examples(convolution, x, kernel):
    one = partial(gradient_of_penalty, convolution)
    return jax.vmap(one, (0, None))(x[:, None], kernel)


def gradients_of_kernels(convolution, x, kernel):
    one = partial(gradient_of_penalty, convolution)
    return jax.vmap(one, (None, -1))(x, jnp.stack([kernel, kernel + 1], axis=-1))


def gradient_through_scan(convolution, x, kernel):
    def total(x, kernel):
        def body(h, _):
            return jnp.sin(h + jnp.mean(convolution(h, kernel))), None

        return jnp.sum(jax.lax.scan(body, x, length=3)[0])

    return jax.grad(total, BOTH)(x, kernel)


def gradient_through_remat(convolution, x, kernel):
    return jax.grad(jax.checkpoint(partial(penalty, convolution)), BOTH)(x, kernel)


ORDERS = [value, gradient, gradient_of_penalty, tangent_of_gradient, gradient_of_tangent]
TRANSFORMS = [
    penalties_of_examples,
    gradients_of_kernels,
    gradient_through_scan,
    gradient_through_remat,
]


def draw(name, dtype):
    """(public function, plain definition, form for the CPU, x, kernel)."""
    public, form, *shapes = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x, kernel = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    return public, inspect.unwrap(public), form, x, kernel


def text(function, *arguments, platform):
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
    return lowered.as_text()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ORDERS)
def test_each_platform_gets_its_form(name, order):
    public, plain, _, x, kernel = draw(name, jnp.float32)
    for platform in ("tpu", "cuda"):
        ours = text(partial(order, public), x, kernel, platform=platform)
        theirs = text(partial(order, plain), x, kernel, platform=platform)
        operation = "stablehlo.dot_general" if name == "pointwise" else "stablehlo.convolution"
        assert ours.count(operation) == theirs.count(operation) > 0
        # Nothing of the other form, and no choice that is left to the compiler.
        for other in ("concatenate", "optimization_barrier", "stablehlo.case"):
            assert other not in ours
        assert name == "pointwise" or "dot_general" not in ours
    ours = text(partial(order, public), x, kernel, platform="cpu")
    assert "stablehlo.convolution" not in ours
    assert "stablehlo.case" not in ours
    assert "dot_general" in ours


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_forms_are_one_function(name, x64):
    public, plain, form, x, kernel = draw(name, jnp.float64)
    values, everything = [
        jax.jit(lambda c, x, k, fs=functions: [f(c, x, k) for f in fs], static_argnums=0)
        for functions in (ORDERS, ORDERS + TRANSFORMS)
    ]
    expected = everything(plain, x, kernel)
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    jax.tree.map(close, everything(public, x, kernel), expected)
    jax.tree.map(close, values(form, x, kernel), expected[: len(ORDERS)])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_each_dtype_is_kept(name):
    for dtype in (jnp.bfloat16, jnp.float32):
        public, plain, _, x, kernel = draw(name, dtype)
        ours, theirs = [
            jax.tree.map(
                lambda a: (a.shape, a.dtype),
                jax.eval_shape(partial(gradient_of_penalty, convolution), x, kernel),
            )
            for convolution in (public, plain)
        ]
        assert ours == theirs


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_derivatives_keep_the_operands_alone(name):
    public, plain, _, x, kernel = draw(name, jnp.float32)

    def kept(function):
        _, pullback = jax.vjp(function, x, kernel)
        return sorted((leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(pullback))

    assert kept(public) == sorted((a.shape, a.dtype.name) for a in (x, kernel))
    # JAX itself also keeps flipped kernels.
    ours, theirs = [collections.Counter(kept(partial(gradient, c))) for c in (public, plain)]
    assert ours <= theirs


def test_a_policy_of_checkpoint_saves_nothing_of_the_other_form():
    """The products of the CPU's form are not the `dots` that a user wants saved on a TPU."""
    x, kernels = jnp.zeros((2, 4, 6, 5)), jnp.zeros((7, 3, 3, 5, 5))

    @partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
    def layer(h, kernel):
        return jnp.tanh(conv3x3(jnp.tanh(conv3x3(h, kernel)), kernel)), None

    def network(x, kernels):
        return jnp.sum(jax.lax.scan(layer, x, kernels)[0])

    _, pullback = jax.vjp(network, x, kernels)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pullback))
    assert size <= 7 * x.nbytes + kernels.nbytes


def over(mesh, check_vma):
    """Gradients of a penalty over a batch that is split by `shard_map`, with a shared kernel."""

    def local(convolution, x, kernel):
        g_x, g_kernel = gradient_of_penalty(convolution, x, kernel)
        # With check_vma JAX sums the gradient of what all devices share by itself.
        return g_x, g_kernel if check_vma else jax.lax.psum(g_kernel, "data")

    specs = jax.P("data"), jax.P()
    return lambda convolution, *arguments: jax.jit(
        jax.shard_map(
            partial(local, convolution),
            mesh=mesh,
            in_specs=specs,
            out_specs=specs,
            check_vma=check_vma,
        )
    )(*arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_batch_may_be_split(name, check_vma, exact_products):
    public, plain, _, x, kernel = draw(name, jnp.float32)
    x = jnp.concatenate([x, jnp.flip(x)])
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
    expected = gradient_of_penalty(plain, x, kernel)
    jax.tree.map(close, over(mesh, check_vma)(public, x, kernel), expected)
    x, kernels = x[:, None], jnp.stack([kernel] * 4)
    g_x, g_kernel = jax.pmap(partial(gradient_of_penalty, public))(x, kernels)
    jax.tree.map(close, (g_x[:, 0], g_kernel.sum(0)), expected)


def test_works_without_jit():
    with jax.disable_jit():
        for name in CONVOLUTIONS:
            public, plain, _, x, kernel = draw(name, jnp.float32)
            np.testing.assert_allclose(public(x, kernel), plain(x, kernel), rtol=1e-5)


def test_a_layer_is_lowered_for_the_platform():
    x = jnp.zeros((2, 4, 6, 3))
    layer = Conv(4)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)

    def train(params, x):
        return jax.grad(lambda params: jnp.sum(layer.apply(params, x) ** 2))(params)

    assert text(train, params, x, platform="tpu").count("stablehlo.convolution") == 2
    assert "stablehlo.convolution" not in text(train, params, x, platform="cpu")
