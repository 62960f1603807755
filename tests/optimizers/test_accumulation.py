"""Accumulation equals the large batch, survives NaN, and runs the optimizer only when due."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import P

from jaxgen.optimizers import accumulate, by_path, hidden_accumulation, scale_by_tree

PARAMS = {"kernel": jnp.full((4, 3), 0.5), "bias": jnp.zeros(3)}


def draws(count, seed=0):
    """`count` gradients of PARAMS."""
    rng = np.random.default_rng(seed)
    return [
        jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), PARAMS)
        for _ in range(count)
    ]


def steps(optimizer, gradients, extra=(), params=PARAMS):
    """Every update, and the last state; extra: keyword arguments of each call."""
    state, updates = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for gradient, more in zip(gradients, extra or [{}] * len(gradients), strict=True):
        new, state = update(gradient, state, params, **more)
        params = optax.apply_updates(params, new)
        updates.append(new)
    return updates, state


def assert_close(actual, expected, tolerance=1e-6):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


def is_zero(tree):
    return all(not np.any(leaf) for leaf in jax.tree.leaves(tree))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def optimizers():
    """Of several states, with a schedule, a clip of the mean and decay."""
    falling = optax.exponential_decay(0.1, 1, 0.5)
    return {
        "adamw": optax.adamw(falling, weight_decay=0.1),
        "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(falling, momentum=0.9)),
        "adafactor": optax.adafactor(falling, min_dim_size_to_factor=2),
        "rates": optax.chain(optax.lion(0.1), scale_by_tree(by_path({"bias": 2.0, "": 0.5}))),
    }


@pytest.mark.parametrize("name", optimizers())
def test_equals_multi_steps_where_weights_are_equal(name):
    optimizer, gradients = optimizers()[name], draws(9)
    actual, _ = steps(accumulate(optimizer, 3), gradients)
    expected, _ = steps(optax.MultiSteps(optimizer, 3), gradients)
    assert_close(actual, expected)
    assert [is_zero(u) for u in actual] == [True, True, False] * 3


@pytest.mark.parametrize("name", optimizers())
def test_token_weights_make_it_one_large_batch(name):
    optimizer = optimizers()[name]
    tokens, counts = draws(12), [1, 5, 3, 3]  # two steps of six tokens, in two parts each
    mean = lambda trees: jax.tree.map(lambda *g: sum(g) / len(g), *trees)  # noqa: E731
    starts = np.cumsum([0, *counts])
    micro = [mean(tokens[a:b]) for a, b in itertools.pairwise(starts)]
    actual, _ = steps(accumulate(optimizer, 2), micro, [{"weight": n} for n in counts])
    expected, _ = steps(optimizer, [mean(tokens[:6]), mean(tokens[6:])])
    assert_close(actual[1::2], expected)
    unweighted, _ = steps(accumulate(optimizer, 2), micro)
    assert np.abs(unweighted[1]["kernel"] - expected[0]["kernel"]).max() > 1e-3


def poisoned(gradient, value):
    return gradient | {"bias": gradient["bias"].at[1].set(value)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_micro_gradient_that_is_not_finite_is_left_out_with_its_weight(value):
    g, extra = draws(6), [{"weight": w} for w in (2.0, 7.0, 1.0, 1.0, 3.0, 5.0)]
    bad = [g[0], poisoned(g[1], value), *g[2:]]
    actual, state = steps(accumulate(optax.adam(0.1), 3), bad, extra)
    zero = [g[0], g[2], g[2], *g[3:]]
    absent = [{"weight": w} for w in (2.0, 0.0, 1.0, 1.0, 3.0, 5.0)]
    expected, _ = steps(accumulate(optax.adam(0.1), 3), zero, absent)
    assert_close(actual, expected)
    assert int(state.skipped) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64])
def test_one_number_among_thousands_that_is_not_finite_is_found(dtype):
    """XLA's maximum over as many drops a NaN on the CPU."""
    optimizer = accumulate(optax.sgd(1.0), 1)
    g = jnp.linspace(-1, 1, 5000).astype(dtype)
    step = jax.jit(lambda g: optimizer.update(g, optimizer.init(g))[1].skipped)
    found = [int(step(g.at[1234].set(value))) for value in (0, np.nan, np.inf, -np.inf)]
    assert found == [0, 1, 1, 1]
    largest = jnp.full_like(g, jnp.finfo(dtype).max)
    assert int(step(largest)) == 0


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_weight_that_is_not_finite_or_negative_is_left_out(weight):
    g = draws(2)
    actual, state = steps(accumulate(optax.sgd(1.0), 2), g, [{"weight": weight}, {"weight": 4.0}])
    assert_close(actual[1], jax.tree.map(jnp.negative, g[1]))
    assert int(state.skipped) == 1


def test_window_without_any_gradient_leaves_the_optimizer_as_it_was():
    g = draws(4)
    nans = [poisoned(tree, np.nan) for tree in g[:2]]
    optimizer = accumulate(optax.adam(0.1), 2)
    (*_, skipped), state = steps(optimizer, nans)
    assert is_zero(skipped)
    assert_close(state.inner, optax.adam(0.1).init(PARAMS))
    assert (int(state.micro_step), int(state.skipped)) == (0, 2)
    actual, _ = steps(optimizer, nans + g[2:])
    expected, _ = steps(optimizer, g[2:])
    assert_close(actual[2:], expected)


def test_window_without_weight_gives_no_step():
    updates, state = steps(accumulate(optax.adam(0.1), 2), draws(2), [{"weight": 0}] * 2)
    assert is_zero(updates)
    assert int(state.inner[0].count) == 0
    assert int(state.skipped) == 0


@pytest.mark.parametrize("ahead, k", [(3, 2), (1, 3), (0, 2), (np.int64(3), np.int64(1))])
def test_k_may_change_with_a_checkpoint(ahead, k):
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    _, state = steps(accumulate(optax.sgd(1.0), 4), [ones] * ahead)
    continued = jax.jit(accumulate(optax.sgd(1.0), k).update)
    given = []
    for _ in range(2 * k + 1):
        updates, state = continued(ones, state)
        given.append(float(updates["bias"][0]))
    waits = max(k - ahead - 1, 0)
    assert given == ([0] * waits + [-1] + ([0] * (k - 1) + [-1]) * 3)[: 2 * k + 1]


def test_k_that_follows_a_schedule_equals_multi_steps():
    def k(count):
        return jnp.where(count < 2, 1, 3)

    g = draws(8)
    actual, state = steps(accumulate(optax.adam(0.1), k), g)
    expected, _ = steps(optax.MultiSteps(optax.adam(0.1), k), g)
    assert_close(actual, expected)
    assert (int(state.steps), int(state.micro_step)) == (4, 0)


def test_flush_applies_a_partial_window_and_no_empty_one():
    g = draws(5)
    optimizer, inner = accumulate(optax.adam(0.1), 3), optax.adam(0.1)
    weights = [{"weight": w, "flush": i == 4} for i, w in enumerate((1.0, 2.0, 1.0, 3.0, 5.0))]
    actual, _ = steps(optimizer, g, weights)
    mean = jax.tree.map(lambda a, b: (3 * a + 5 * b) / 8, g[3], g[4])
    whole = jax.tree.map(lambda a, b, c: (a + 2 * b + c) / 4, *g[:3])
    expected, _ = steps(inner, [whole, mean])
    assert_close([actual[2], actual[4]], expected)
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)
    empty, after = steps(
        optimizer, g[:2] + [nothing] * 2, [{}] * 2 + [{"weight": 0, "flush": True}] * 2
    )
    assert_close(empty[2], steps(inner, [jax.tree.map(lambda a, b: (a + b) / 2, *g[:2])])[0][0])
    assert is_zero(empty[3])
    assert (int(after.steps), int(after.micro_step), int(after.inner[0].count)) == (1, 0, 1)


def test_a_donated_step_needs_no_memory_of_its_own():
    params = {"kernel": jnp.ones((128, 256)), "other": jnp.ones((128, 256))}
    optimizer = accumulate(optax.adam(0.1), 4)

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, optimizer.init(params), params)
    plan = compiled.compile().memory_analysis()
    assert plan.temp_size_in_bytes < params["kernel"].nbytes / 8
    assert plan.output_size_in_bytes - plan.alias_size_in_bytes < 1024


def test_sum_that_overflows_does_not_outlive_its_window():
    g = draws(4)
    huge = [jax.tree.map(lambda x: jnp.full_like(x, 3e38), tree) for tree in g[:2]]
    actual, _ = steps(accumulate(optax.sgd(1.0), 2), huge + g[2:])
    expected, _ = steps(accumulate(optax.sgd(1.0), 2), g[2:])
    assert_close(actual[2:], expected)


def test_gradient_through_a_window_without_weight_is_finite_under_vmap():
    optimizer = accumulate(optax.adam(0.1), 1)

    def total(gradient, weight):
        updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), weight=weight)
        return sum(jnp.sum(u) for u in jax.tree.leaves(updates))

    def totals(pair):
        return jnp.sum(jax.vmap(total)(pair, jnp.array([0.0, 1.0])))

    slopes = jax.jit(jax.grad(totals))(jax.tree.map(lambda *x: jnp.stack(x), *draws(2)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert is_zero(jax.tree.map(lambda leaf: leaf[0], slopes))


class Count(NamedTuple):
    calls: Any


def counting():
    """Counts its calls, and tells them apart by a root that nothing else takes."""

    def update(updates, state, params=None):
        calls = state.calls + 1
        return jax.tree.map(lambda u: u * jnp.sqrt(1.0 * calls), updates), Count(calls)

    return optax.GradientTransformation(lambda params: Count(jnp.zeros((), jnp.int32)), update)


BOTH = {"accumulate": accumulate, "hidden_accumulation": hidden_accumulation}


@pytest.mark.parametrize("name", BOTH)
def test_inner_runs_only_when_due(name):
    optimizer = BOTH[name](counting(), 4)
    updates, state = steps(optimizer, draws(11))
    assert int(state.inner.calls) == 2
    assert int(state.micro_step) == 3
    assert [is_zero(u) for u in updates] == [i % 4 != 3 for i in range(11)]

    def primitives(jaxpr):
        return [equation.primitive.name for equation in jaxpr.eqns]

    jaxpr = jax.make_jaxpr(optimizer.update)(draws(1)[0], state, PARAMS).jaxpr
    assert "sqrt" not in primitives(jaxpr)
    (cond,) = [e for e in jaxpr.eqns if e.primitive.name == "cond"]
    assert ["sqrt" in primitives(branch.jaxpr) for branch in cond.params["branches"]] == [
        False,
        True,
    ]


@pytest.mark.parametrize("name", BOTH)
def test_under_vmap_every_copy_keeps_its_own_window(name):
    optimizer = BOTH[name](optax.adam(0.1), 2)
    update, updates_of = jax.jit(optimizer.update), jax.jit(jax.vmap(optimizer.update))
    g = draws(6)
    pairs = [jax.tree.map(lambda *x: jnp.stack(x), a, b) for a, b in zip(g[:3], g[3:], strict=True)]
    start = [optimizer.init(PARAMS)]
    start.append(update(g[5], start[0])[1])  # one call ahead
    state = jax.tree.map(lambda *x: jnp.stack(x), *start)
    for i, pair in enumerate(pairs):
        updates, state = updates_of(pair, state)
        for j, gradient in enumerate((g[i], g[3 + i])):
            expected, start[j] = update(gradient, start[j])
            assert_close(jax.tree.map(lambda u, j=j: u[j], updates), expected)


@pytest.mark.parametrize("name", BOTH)
def test_extra_arguments_reach_the_inner_transformation(name):
    polyak = optax.polyak_sgd(max_learning_rate=10.0)
    g = draws(2)
    extra = [{"value": 1.0}, {"value": 2.0}]
    actual, _ = steps(optax.chain(BOTH[name](polyak, 2)), g, extra)
    if name == "accumulate":
        sent = jax.tree.map(lambda a, b: (a + b) / 2, *g)
    else:
        sent = jax.tree.map(lambda a, b: 0.1 * (a + b) / 2, *g)
    expected, _ = steps(polyak, [sent], extra[1:])
    assert_close(actual[1], expected[0])


def test_composes_with_injected_rates_masks_and_groups():
    def rate(count):
        return 1.0 / (1 + count)

    injected = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    grouped = optax.partition(
        {"slow": accumulate(injected, 2), "none": optax.set_to_zero()},
        by_path({"kernel": "slow", "bias": "none"}),
    )
    within = accumulate(
        optax.partition(
            {"slow": injected, "none": optax.set_to_zero()},
            by_path({"kernel": "slow", "bias": "none"}),
        ),
        2,
    )
    masked = optax.masked(accumulate(injected, 2), by_path({"kernel": True}, default=False))
    g = draws(4)
    for optimizer in (grouped, within, masked):
        updates, _ = steps(optimizer, g)
        for i in (1, 3):
            mean = (g[i - 1]["kernel"] + g[i]["kernel"]) / 2
            np.testing.assert_allclose(updates[i]["kernel"], -mean * 2 / (i + 1), rtol=1e-6)
        assert is_zero(updates[0]["kernel"])
        assert optimizer is masked or is_zero(updates[1]["bias"])


def test_bf16_gradients_are_summed_in_f32_and_updates_are_bf16():
    params = {"x": jnp.zeros(1, jnp.bfloat16)}
    terms = [1.0] + [2.0**-9] * 7  # lost, one by one, in a sum of 8 bits
    gradients = [{"x": jnp.full(1, t, jnp.bfloat16)} for t in terms]
    for optimizer, share in (
        (accumulate(optax.scale(8.0), 8), 1.0),
        (hidden_accumulation(optax.scale(8.0), 8, 0.5), 0.5),
    ):
        updates, state = steps(optimizer, gradients, params=params)
        assert updates[-1]["x"].dtype == jnp.bfloat16
        expected = jnp.asarray(share * sum(terms), jnp.bfloat16)
        assert float(updates[-1]["x"][0]) == float(expected) != share
        assert jax.tree.leaves(state)[0].dtype == jnp.float32


def test_injected_adam_of_bf16_parameters_stays_bf16_and_finite():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    adam = optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)(learning_rate=0.1)
    gradients = [jax.tree.map(lambda g: g.astype(jnp.bfloat16), g) for g in draws(2)]
    updates, _ = steps(accumulate(adam, 1), gradients, params=params)
    for leaf in jax.tree.leaves(updates):
        assert leaf.dtype == jnp.bfloat16
        assert np.isfinite(leaf.astype(np.float32)).all()


def test_states_hold_no_more_than_they_must():
    parameters, scalars = size(PARAMS), 4
    assert size(accumulate(optax.sgd(0.1), 4).init(PARAMS)) == parameters + scalars
    assert size(accumulate(optax.adam(0.1), 4).init(PARAMS)) == 3 * parameters + scalars + 1
    assert size(hidden_accumulation(optax.sgd(0.1), 4).init(PARAMS)) == parameters + 1


@pytest.mark.parametrize("name", BOTH)
def test_state_can_be_donated_and_hold_a_key(name):
    optimizer = BOTH[name](
        optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.adam(1.0)), 2
    )
    expected, _ = steps(optimizer, draws(2))
    state, update = optimizer.init(PARAMS), jax.jit(optimizer.update, donate_argnums=1)
    for gradient in draws(2):
        updates, state = update(gradient, state)
    assert_close(updates, expected[1])


@pytest.mark.parametrize("name", BOTH)
def test_compiled_step_needs_one_buffer_beside_state_and_parameters(name):
    params = {"x": jnp.zeros(1 << 20)}
    optimizer = BOTH[name](optax.adam(0.1), 4)

    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    arguments = (params, optimizer.init(params), params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * params["x"].nbytes  # the update


# ---- on several devices ----

DEVICES = 8


def loss(params, x, y, where):
    """Sum over the rows that count, and their number."""
    # The sums over devices and over one batch differ by the rounding of every product otherwise.
    products = jnp.matmul(x, params["kernel"], precision="highest")
    errors = (products + params["bias"][None] - y) ** 2
    return jnp.sum(jnp.where(where[:, None], errors, 0)), jnp.sum(where, dtype=jnp.float32)


def ragged_batches(seed=0):
    """Four micro-batches over eight devices of five rows, of which some count."""
    rng = np.random.default_rng(seed)
    shape = (4, DEVICES, 5)
    x, y = rng.standard_normal((*shape, 4)), rng.standard_normal((*shape, 3))
    where = np.arange(5) < rng.integers(1, 6, shape[:2])[..., None]
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.asarray(where)


def micro_step(optimizer):
    """A training step on one device of those that share "data", under pmap and shard_map."""

    def step(params, state, *batch):
        def mean(params):
            total, weight = jax.lax.psum(loss(params, *batch), "data")
            return total / weight, weight

        gradient, weight = jax.grad(mean, has_aux=True)(params)
        gradient = jax.lax.pmean(gradient, "data")  # in pmap it is of this device's part alone
        updates, state = optimizer.update(gradient, state, params, weight=weight)
        return optax.apply_updates(params, updates), state

    return step


@partial(jax.jit, static_argnums=(0, 4))
def whole_batches(optimizer, x, y, where, kept=(0, 1, 2, 3)):
    """Two steps, each on the rows of two micro-batches at once."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for pair in ((0, 1), (2, 3)):
        rows = np.array([i for i in pair if i in kept])
        flat = [a[rows].reshape(-1, *a.shape[3:]) for a in (x, y, where)]
        gradient, weight = jax.grad(loss, has_aux=True)(params, *flat)
        gradient = jax.tree.map(lambda g, w=weight: g / w, gradient)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def sharded(optimizer):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def shard(params, state, x, y, where):
        return micro_step(optimizer)(params, state, x[0], y[0], where[0])

    specs = (P(), P(), P("data"), P("data"), P("data"))
    run = jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=(P(), P()))
    return jax.jit(run, donate_argnums=(0, 1))


def train(kind, optimizer, batch):
    params, state = jax.tree.map(jnp.copy, PARAMS), optimizer.init(PARAMS)
    if kind == "pmap":
        params, state = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (DEVICES, *leaf.shape)), (params, state)
        )
        run = jax.pmap(micro_step(optimizer), axis_name="data", donate_argnums=(0, 1))
    else:
        run = sharded(optimizer)
    for micro in zip(*batch, strict=True):
        params, state = run(params, state, *micro)
    return (
        jax.tree.map(lambda leaf: leaf[0], (params, state)) if kind == "pmap" else (params, state)
    )


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_devices_with_ragged_batches_and_donated_buffers_equal_one_large_batch(kind):
    x, y, where = ragged_batches()
    adam = optax.adamw(0.1)
    params, state = train(kind, accumulate(adam, 2), (x, y, where))
    assert_close(params, whole_batches(adam, x, y, where), 1e-5)
    assert int(state.skipped) == 0

    nan = x.at[2, 5, 0].set(np.nan)  # on one device of eight
    params, state = train(kind, accumulate(adam, 2), (nan, y, where))
    assert_close(params, whole_batches(adam, x, y, where, (0, 1, 3)), 1e-5)
    assert int(state.skipped) == 1


# ---- hidden accumulation ----


def tails():
    """What may follow the momentum."""
    falling = optax.exponential_decay(0.1, 1, 0.5)
    signs = optax.chain(optax.scale_by_sign(), optax.add_decayed_weights(0.1))
    return {
        "momentum": optax.scale_by_learning_rate(0.1),
        "schedule": optax.scale_by_learning_rate(falling),
        "sign": optax.chain(signs, optax.scale_by_learning_rate(falling)),
    }


@pytest.mark.parametrize("name", tails())
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.usefixtures("x64")
def test_hidden_accumulation_is_accumulation_then_momentum(name, k):
    with_momentum = optax.chain(optax.ema(0.8, debias=False), tails()[name])
    params = jax.tree.map(lambda p: p.astype(jnp.float64), PARAMS)
    gradients = [jax.tree.map(lambda g: g.astype(jnp.float64), g) for g in draws(9)]
    actual, _ = steps(hidden_accumulation(tails()[name], k, 0.8), gradients, params=params)
    for apart in (
        accumulate(with_momentum, k),
        optax.MultiSteps(with_momentum, k, accumulator_dtype=jnp.float64),
    ):
        expected, _ = steps(apart, gradients, params=params)
        assert_close(actual, expected, 1e-12)
    assert not is_zero(actual[k - 1])


def test_hidden_accumulation_with_steps_that_are_not_finite_left_out():
    g = draws(4)
    optimizer = hidden_accumulation(optax.sgd(0.1), 2)
    safe = optax.apply_if_finite(optimizer, max_consecutive_errors=10)
    actual, _ = steps(safe, [g[0], poisoned(g[1], np.nan), *g[1:]])
    expected, _ = steps(optimizer, g)
    assert_close([actual[0], *actual[2:]], expected)
    assert is_zero(actual[1])


def test_hidden_accumulation_with_an_injected_decay():
    def build(decay):
        return hidden_accumulation(optax.sgd(1.0), 2, decay)

    g = draws(2)
    actual, _ = steps(optax.inject_hyperparams(build)(decay=0.75), g)
    expected, _ = steps(hidden_accumulation(optax.sgd(1.0), 2, 0.75), g)
    assert_close(actual, expected)
