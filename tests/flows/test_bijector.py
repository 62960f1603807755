"""chain, repeat: depth, memory, gradients, and initialisation from data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import flows
from jaxgen.flows import Bijector
from jaxgen.models import MLP, Conv

mlp = partial(MLP, hidden=(6,), last_init=jax.nn.initializers.zeros)
# Not the identity at its start.
awake = partial(mlp, last_init=jax.nn.initializers.normal(0.5))
affine_step = flows.chain(
    flows.actnorm(), flows.invertible_1x1(), flows.coupling(mlp, flows.affine())
)


def normal(shape, seed=0, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def assert_close(actual, expected, tolerance=1e-9):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


def layers(params, depth):
    """The params of each layer of a `repeat`."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(depth)]


def moments(x):
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axes), jnp.std(x, axes)


def test_chain_initialises_each_layer_on_the_output_of_those_before(x64):
    flow = flows.chain(flows.actnorm(), flows.coupling(awake, flows.affine()), flows.actnorm())
    x = 5 + 3 * normal((64, 4))
    params = jax.jit(flow.init)(jax.random.key(0), x)
    first = flows.actnorm().forward(params[0], x)[0]
    last = flow.forward(params, x)[0]
    for z in (first, last):
        mean, std = moments(z)
        assert_close(mean, np.zeros(4))
        assert_close(std, np.ones(4), 5e-3)  # eps = 1e-3 beside the standard deviation
    middle = flows.coupling(awake, flows.affine()).forward(params[1], first)[0]
    assert np.abs(moments(middle)[1] - 1).max() > 0.1  # so the last one had something to do


def test_repeat_initialises_each_layer_on_the_output_of_those_before(x64):
    step = flows.chain(flows.actnorm(), flows.coupling(awake, flows.affine()), flows.reversal())
    x = 5 + 3 * normal((64, 4))
    params = jax.jit(flows.repeat(step, 3).init)(jax.random.key(0), x)
    kernels = params[1]["params"]["Dense_0"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1  # every layer has its own key
    for p in layers(params, 3):
        mean, std = moments(flows.actnorm().forward(p[0], x)[0])
        assert_close(mean, np.zeros(4))
        assert_close(std, np.ones(4), 5e-3)
        x = step.forward(p, x)[0]


def test_init_on_a_sharded_batch_uses_the_global_statistics(eight_devices):
    flow = flows.repeat(flows.chain(flows.actnorm(), flows.coupling(awake, flows.affine())), 2)
    # Every shard has a mean of its own, far from the global one.
    x = normal((16, 4), dtype=jnp.float32) + jnp.repeat(jnp.arange(8.0), 2)[:, None]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    init = jax.jit(flow.init)
    assert_close(init(jax.random.key(0), sharded), init(jax.random.key(0), x), 1e-5)


def test_repeat_equals_the_unrolled_chain(x64, draw):
    x, context = normal((3, 4)), normal((3, 2), 1)
    each = tuple(draw(affine_step, x, context, seed=seed) for seed in range(3))
    loop, scan = flows.chain(*[affine_step] * 3), flows.repeat(affine_step, 3)

    def numbers(flow):
        def loss(params, x, context):
            z, logdet = flow.forward(params, x, context)
            back, back_logdet = flow.inverse(params, jnp.sin(z), context)
            return jnp.sum(z**3 + back**2) + jnp.sum(logdet**2 - 3 * back_logdet), (z, logdet, back)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    (value, outputs), (g_params, *g) = numbers(loop)(each, x, context)
    (scan_value, scan_outputs), (scan_g_params, *scan_g) = numbers(scan)(
        flows.stack(each), x, context
    )
    assert_close((scan_value, scan_outputs, scan_g), (value, outputs, g))
    assert_close(scan_g_params, flows.stack(g_params))


REVERSIBLE = {
    "coupling": (flows.coupling(mlp, flows.affine()), (3, 5), (3, 2)),
    "general": (flows.invertible_1x1(), (3, 4), None),
    "chain": (affine_step, (3, 4), (3, 2)),
    "checkerboard": (
        flows.checkerboard_coupling(Conv, flows.affine(), flows.swapped(flows.checkerboard())),
        (2, 2, 4, 2),
        (2, 2, 4, 1),
    ),
    "nested": (flows.repeat(flows.coupling(mlp, flows.affine()), 2), (3, 4), (3, 2)),
}


@pytest.mark.parametrize("name", REVERSIBLE)
def test_remat_and_reversible_gradients_equal_the_plain_ones(name, x64, draw):
    step, shape, context_shape = REVERSIBLE[name]
    x = normal(shape)
    context = None if context_shape is None else normal(context_shape, 1)
    plain = flows.repeat(step, 3)
    params = draw(plain, x, context)
    g_z, g_logdet = normal(shape, 2), normal(shape[:1], 3)
    # Both outputs, z alone, logdet alone.
    cotangents = jnp.stack([g_z, g_z, 0 * g_z]), jnp.stack([g_logdet, 0 * g_logdet, g_logdet])

    def gradients(flow):
        @jax.jit
        def run(params, x, context):
            def both(function):
                outputs, vjp = jax.vjp(function, params, x, context)
                return outputs, jax.vmap(vjp)(cotangents)

            return both(flow.forward), both(flow.inverse)

        return run(params, x, context)

    expected = gradients(plain)
    for _, (_, g_x, _) in expected:
        assert np.abs(g_x[2]).max() > 1e-3 or name == "general"
    for memory in ({"remat": True}, {"reversible": True}):
        assert_close(gradients(flows.repeat(step, 3, **memory)), expected, 1e-8)


def test_memory_per_layer():
    """In units of a layer's input: all activations, the input alone, nothing."""
    x = jnp.zeros((512, 8))
    wide = partial(MLP, hidden=(32,))

    def temporary_bytes(depth, direction, memory):
        flow = flows.repeat(flows.coupling(wide, flows.affine()), depth, **memory)
        params = jax.eval_shape(flow.init, jax.random.key(0), x)
        gradient = jax.jit(jax.grad(lambda p, x: getattr(flow, direction)(p, x)[1].sum()))
        return gradient.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    def growth(direction="forward", **memory):
        small, large = (temporary_bytes(depth, direction, memory) for depth in (8, 32))
        return (large - small) / (24 * x.nbytes)

    assert growth() > 4
    assert abs(growth(remat=True) - 1) < 0.1
    assert abs(growth(reversible=True)) < 0.1
    assert abs(growth("inverse", remat=True) - 1) < 0.1
    assert abs(growth("inverse", reversible=True)) < 0.1


@pytest.mark.parametrize("memory", [{}, {"remat": True}, {"reversible": True}])
def test_the_conditioner_is_traced_as_often_at_any_depth(memory):
    x = jnp.zeros((2, 4))

    def traces(depth):
        count = 0

        class Counted(MLP):
            def __call__(self, x, context=None):
                nonlocal count
                count += 1
                return super().__call__(x, context)

        flow = flows.repeat(
            flows.coupling(partial(Counted, hidden=(3,)), flows.affine()), depth, **memory
        )
        params = jax.eval_shape(flow.init, jax.random.key(0), x)
        jax.eval_shape(jax.value_and_grad(lambda p: flows.log_prob(flow, p, x).sum()), params)
        jax.eval_shape(flow.inverse, params, x)
        return count

    assert traces(4) == traces(32) > 0


@pytest.mark.parametrize("memory", [{}, {"reversible": True}])
def test_a_flow_called_again_without_jit_is_not_compiled_again(memory):
    step = flows.coupling(partial(MLP, hidden=(3,)), flows.affine())
    flow = flows.chain(flows.repeat(step, 2, **memory), flows.reversal())
    compilations = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    def run(seed, rows=2):
        key, x = jax.random.key(seed), normal((rows, 4), seed, jnp.float32)
        params = flow.init(key, x, x)
        jax.grad(lambda p: flows.log_prob(flow, p, x, x).sum())(params)
        flows.log_prob(flow, params, x, x)
        flows.sample(flow, params, key, x.shape, x)
        return len(compilations)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first, *again = [run(seed) for seed in range(3)]
        assert again == [first, first]
        assert run(3, rows=3) > first
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_layers_without_params_repeat():
    flow, x = flows.repeat(flows.permutation([1, 2, 0]), 2), jnp.array([[5.0, 6.0, 7.0]])
    params = flow.init(jax.random.key(0), x)
    z, logdet = flow.forward(params, x)
    np.testing.assert_array_equal(z, [[7.0, 5.0, 6.0]])
    np.testing.assert_array_equal(logdet, [0.0])
    np.testing.assert_array_equal(flow.inverse(params, z)[0], x)


def test_a_bijector_of_the_users_own_needs_three_functions(x64):
    """z = x^3 + x has no `backward`, no params, and an inverse by Newton's method."""

    def forward(params, x, context=None):
        return x**3 + x, jnp.sum(jnp.log(3 * x**2 + 1), axis=1)

    def inverse(params, z, context=None):
        x = jax.lax.fori_loop(0, 60, lambda _, x: x - (x**3 + x - z) / (3 * x**2 + 1), z)
        return x, -forward(params, x)[1]

    cubic = Bijector(lambda key, x, context=None: (), forward, inverse)
    x = normal((3, 2))
    expected = jax.grad(lambda x: flows.log_prob(flows.repeat(cubic, 2), (), x).sum())(x)
    flow = flows.repeat(cubic, 2, reversible=True)
    gradient = jax.grad(lambda x: flows.log_prob(flow, (), x).sum())(x)
    assert_close(gradient, expected, 1e-8)
    assert_close(flow.inverse((), flow.forward((), x)[0])[0], x)
