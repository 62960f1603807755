"""jit, vmap, pmap, shard_map and dtypes; and the recipe of a data-parallel training step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import P

from jaxgen import flows
from jaxgen.models import MLP, Conv

N = 8  # devices, from conftest
mlp = partial(MLP, hidden=(6,), last_init=jax.nn.initializers.zeros)
step = flows.chain(flows.actnorm(), flows.invertible_1x1(), flows.coupling(mlp, flows.affine()))
made = partial(flows.MADE, hidden=(6,))
image_step = flows.chain(flows.actnorm(), flows.coupling(Conv, flows.affine()))
FLOWS = {
    "repeat": (flows.repeat(step, 2), (4,)),
    "reversible": (flows.repeat(step, 2, reversible=True), (4,)),
    "spline": (flows.repeat(flows.coupling(mlp, flows.rational_quadratic_spline(3)), 2), (4,)),
    "multiscale": (
        flows.multiscale(flows.chain(flows.squeeze(), flows.repeat(image_step, 2)), image_step),
        (2, 2, 2),
    ),
    "vector": (
        flows.chain(
            flows.elementwise(flows.rational_quadratic_spline(3)),
            flows.coupling_flow(4, depth=2, width=6),
            flows.autoregressive(made, flows.affine()),
            flows.invert(flows.autoregressive(made, flows.affine())),
        ),
        (4,),
    ),
}


def bases(mean, log_std, factor, logits, rows, z):
    """Every base with parameters. Draws without noise, for a generator's depends on the dtype."""
    shared = {
        "gaussian": flows.gaussian(mean[0], log_std[0]),
        "gaussian_full": flows.gaussian_full(mean[0], factor),
        "mixture": flows.mixture(logits, mean, log_std),
        "independent": flows.independent(lambda z: -jnp.abs(z) - jnp.log(2), jax.random.laplace),
        "standard_normal": flows.standard_normal(),
        "standard_logistic": flows.standard_logistic(),
    }
    one = flows.mixture(jnp.array([0.0, 1e4]), mean, log_std)  # component 1, whatever is drawn
    each = flows.gaussian(rows, 0 * rows)
    draws = [
        base.sample(jax.random.key(0), z, 0.0) for base in (shared["gaussian_full"], one, each)
    ]
    return {name: base.log_prob(z) for name, base in shared.items()}, each.log_prob(z), draws


def draw_bases(rng):
    factor = 0.3 * rng.normal(size=(3, 3)) + np.eye(3)
    return (
        *(0.5 * rng.normal(size=s) for s in ((2, 3), (2, 3))),
        factor,
        *(rng.normal(size=s) for s in ((2,), (4, 3), (4, 3))),
    )


# Of functions that compute in f32 between their ends; flows of a narrow x do not, see below.
CASES = {"bases": (bases, draw_bases)}


@pytest.mark.parametrize("name", CASES)
def test_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])


def mesh():
    return jax.make_mesh((N,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_close(actual, expected, tolerance=2e-5):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


def everything(flow, params):
    """All public functions of a batch in one, as its gradient is too."""

    def run(key, x, context, pixels):
        def bits(x):
            return flows.bits_per_dim(flows.log_prob(flow, params, x, context), x[0].size)

        keys = jax.random.split(key, 3)
        scale = {"log_scale": jnp.linspace(0, 1, x.shape[-1]).reshape((1,) * (x.ndim - 2) + (-1,))}
        noise = flows.variational_dequantize(flows.scaling(), scale, keys[0], pixels)
        drawn = flows.sample(flow, params, keys[2], x.shape, context, temperature=0.7)
        return {
            "bits_per_dim": bits(x),
            "gradient": jax.grad(lambda x: bits(x).sum())(x),
            "variational_dequantize": noise,
            "dequantize": flows.dequantize(keys[1], pixels),
            "sample": drawn,
            "sample_and_log_prob": flows.sample_and_log_prob(
                flow, params, keys[2], x.shape, context[:1]
            ),
        }

    return run


@pytest.mark.parametrize("name", ["reversible", "multiscale", "vector"])
def test_pmap_vmap_and_shard_map_equal_the_plain_call(name, draw):
    flow, shape = FLOWS[name]
    params = draw(flow, jnp.zeros((2, *shape)), jnp.zeros((2, 3)))
    function = everything(flow, params)
    pixels = jnp.asarray(np.random.default_rng(2).integers(0, 256, (N, 2, *shape)), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), N)
    inputs = (keys, normal((N, 2, *shape)), normal((N, 2, 3), 1), pixels)

    plain = jax.jit(function)
    each = [plain(*jax.tree.map(lambda leaf, i=i: leaf[i], inputs)) for i in range(N)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    assert_close(jax.pmap(function)(*inputs), expected)
    assert_close(jax.jit(jax.vmap(function))(*inputs), expected)

    def shard(*inputs):
        lone = jax.tree.map(lambda leaf: leaf[0], inputs)
        return jax.tree.map(lambda leaf: leaf[None], function(*lone))

    sharded = jax.shard_map(shard, mesh=mesh(), in_specs=P("data"), out_specs=P("data"))
    assert_close(jax.jit(sharded)(*inputs), expected)


def test_not_jitted_equals_jitted(draw):
    flow, shape = FLOWS["multiscale"]
    x = normal((3, *shape))
    params = draw(flow, x)
    z, logdet = flow.forward(params, x)
    assert_close(jax.jit(flow.forward)(params, x), (z, logdet))
    assert_close(jax.jit(flow.inverse)(params, z), flow.inverse(params, z))


def recipe(flow, optimizer, axis):
    """A training step for one device, or for each of those that share `axis`.

    The loss is averaged inside, so that what is reported is the global one. The gradient is
    averaged as well: `pmap` takes it of each replica's own loss, whatever the loss averages, while
    under `shard_map` it is the global one already and its average changes nothing.
    """

    def mean(tree):
        return tree if axis is None else jax.lax.pmean(tree, axis)

    def update(params, state, x):
        loss = lambda p: mean(-flows.log_prob(flow, p, x).mean())  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(mean(gradient), state, params)
        return optax.apply_updates(params, updates), state, value

    return update


# A sum in another order rounds an operand of the next product the other way.
TOLERANCE = {"f32": 2e-5, "tf32": 5e-3, "bf16": 4e-2}


@pytest.mark.parametrize("name", ["repeat", "reversible"])
def test_a_data_parallel_training_step_is_the_single_device_step_on_the_global_batch(
    name, draw, arithmetic
):
    flow, shape = FLOWS[name]
    # Every device has data of its own kind: a local gradient is nothing like the global one.
    x = normal((N, 2, *shape)) * jnp.linspace(0.2, 3, N).reshape(N, 1, 1)
    params = draw(flow, x[0])
    optimizer = optax.sgd(1e-2, momentum=0.9)
    start = (params, optimizer.init(params))

    single = jax.jit(recipe(flow, optimizer, None))
    mapped = jax.pmap(
        recipe(flow, optimizer, "data"), "data", in_axes=(None, None, 0), out_axes=None
    )
    specs = {"mesh": mesh(), "in_specs": (P(), P(), P("data")), "out_specs": P()}
    sharded = jax.jit(jax.shard_map(recipe(flow, optimizer, "data"), **specs))
    ends = []
    for run, batch in (
        (single, x.reshape(-1, *shape)),
        (mapped, x),
        (sharded, x.reshape(-1, *shape)),
    ):
        state, values = start, []
        for _ in range(2):
            *state, value = run(*state, batch)
            values.append(value)
        ends.append((state, values))
    for end in ends[1:]:
        assert_close(end, ends[0], TOLERANCE[arithmetic])
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0][0][0], params)
    assert max(jax.tree.leaves(moved)) > 1e-2


def test_a_sharded_batch_gives_the_numbers_of_one_device(draw):
    """The loop's own way: plain jit, the batch sharded, params replicated."""
    flow, shape = FLOWS["multiscale"]
    x = normal((2 * N, *shape))
    params = draw(flow, x)
    loss = jax.jit(jax.value_and_grad(lambda p, x: -flows.log_prob(flow, p, x).mean()))
    sharded = jax.device_put(x, jax.NamedSharding(mesh(), P("data")))
    assert_close(loss(params, sharded), loss(params, x))


def test_vmap_over_an_ensemble_of_params(draw):
    flow, shape = FLOWS["reversible"]
    x = normal((3, *shape))
    members = [draw(flow, x, seed=seed) for seed in range(2)]
    gradient = jax.grad(lambda p: flows.log_prob(flow, p, x).sum())
    expected = flows.stack([jax.jit(gradient)(p) for p in members])
    assert_close(jax.jit(jax.vmap(gradient))(flows.stack(members)), expected)


@pytest.mark.parametrize("name", ["repeat", "spline", "multiscale", "vector"])
def test_log_prob_in_narrow_floats(name, draw, exact_products):
    flow, shape = FLOWS[name]
    log_prob = jax.jit(lambda params, x: flows.log_prob(flow, params, x))
    with jax.enable_x64(True):
        x = jnp.asarray(normal((3, *shape)), jnp.float64)
        params = draw(flow, x)
        expected = np.asarray(log_prob(params, x))
        assert expected.dtype == np.float64
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.02)):
        actual = log_prob(params, x.astype(dtype))
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=10 * tolerance)
