"""Multipliers of updates: what a re-parameterisation does instead, chains, shapes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.optimizers import by_path, scale_by_tree

RATE, FACTOR, DECAY = 0.03, 0.25, 0.3  # FACTOR: lambda of theta = lambda phi


def descend(optimizer, factor=1.0, steps=20):
    """theta after 20 steps on phi = theta / factor."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 5, 4)), rng.standard_normal((6, 3))

    def loss(phi):
        theta = factor * phi["kernel"]
        return jnp.sum(jnp.log(jnp.cosh(jnp.einsum("nij,jk->nik", a, theta) - b[:, None, :])))

    phi = {"kernel": jnp.asarray(rng.standard_normal((4, 3))) / factor}

    def step(_, carry):
        phi, state = carry
        updates, state = optimizer.update(jax.grad(loss)(phi), state, phi)
        return optax.apply_updates(phi, updates), state

    phi, _ = jax.lax.fori_loop(0, steps, step, (phi, jax.jit(optimizer.init)(phi)))
    return np.asarray(factor * phi["kernel"])


def momentum(rate):
    return optax.sgd(rate / 10, momentum=0.9)


def adam(rate):
    return optax.adam(rate, eps=1e-30)


def lion(rate):
    return optax.lion(rate, weight_decay=0.0)


def adamw(rate):
    return optax.adamw(rate, eps=1e-30, weight_decay=DECAY)


def adafactor(rate):
    return optax.adafactor(rate, min_dim_size_to_factor=2)


def lamb(rate):
    return optax.lamb(rate, eps=1e-30)


@pytest.mark.parametrize(
    ("optimizer", "equivalent"),
    [(momentum, FACTOR**2), (adam, FACTOR), (lion, FACTOR), (adafactor, 1.0), (lamb, 1.0)],
)
@pytest.mark.usefixtures("x64")
def test_a_reparameterisation_is_another_multiplier_in_each(optimizer, equivalent):
    def multiplied(factor):
        return descend(optax.chain(optimizer(RATE), scale_by_tree({"kernel": factor})))

    actual = descend(optimizer(RATE), FACTOR)
    np.testing.assert_allclose(actual, multiplied(equivalent), rtol=1e-6)
    others = {1.0, FACTOR, FACTOR**2} - {equivalent}
    assert all(np.abs(actual - multiplied(factor)).max() > 1e-2 for factor in others)


@pytest.mark.usefixtures("x64")
def test_a_reparameterisation_leaves_the_decay_of_adamw_at_the_whole_rate():
    actual = descend(adamw(RATE), FACTOR)
    multiplier = scale_by_tree({"kernel": FACTOR})
    assert np.abs(actual - descend(optax.chain(adamw(RATE), multiplier))).max() > 1e-2
    parts = optax.chain(
        optax.scale_by_adam(eps=1e-30),
        multiplier,
        optax.add_decayed_weights(DECAY),
        optax.scale(-RATE),
    )
    np.testing.assert_allclose(actual, descend(parts), rtol=1e-6)


@pytest.mark.parametrize("optimizer", [momentum, adam, lion, adamw, adafactor, lamb])
@pytest.mark.usefixtures("x64")
def test_a_multiplier_at_the_end_is_a_smaller_learning_rate_for_all(optimizer):
    chained = optax.chain(optimizer(RATE), scale_by_tree({"kernel": FACTOR}))
    np.testing.assert_allclose(descend(chained), descend(optimizer(RATE * FACTOR)), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_multiplier_before_adam_does_nothing_but_divide_its_epsilon():
    def chained(eps):
        return descend(optax.chain(scale_by_tree({"kernel": FACTOR}), optax.adam(RATE, eps=eps)))

    np.testing.assert_allclose(chained(1e-30), descend(adam(RATE)), rtol=1e-9)
    large, larger = (descend(optax.adam(RATE, eps=eps)) for eps in (1.0, 1.0 / FACTOR))
    np.testing.assert_allclose(chained(1.0), larger, rtol=1e-9)
    assert np.abs(large - larger).max() > 1e-2


UPDATES = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.ones(2)]}


def scaled(multipliers, updates=UPDATES):
    transformation = scale_by_tree(multipliers)
    return transformation.update(updates, transformation.init(updates))[0]


def test_numbers_and_arrays():
    actual = scaled({"a": np.array([[2.0], [3.0]]), "b": [0]})
    np.testing.assert_array_equal(actual["a"], [[0, 2, 4], [9, 12, 15]])
    np.testing.assert_array_equal(actual["b"][0], [0, 0])


def test_zero_freezes_what_is_not_finite():
    bad = UPDATES | {"a": jnp.array([[np.nan, np.inf, 1.0], [-np.inf, np.nan, 2.0]])}
    np.testing.assert_array_equal(scaled({"a": 0.0, "b": [1.0]}, bad)["a"], 0)
    rows = scaled({"a": np.array([[0.0], [0.5]]), "b": [1.0]}, bad)["a"]
    np.testing.assert_array_equal(rows, [[0, 0, 0], [-np.inf, np.nan, 1]])
    slope = jax.grad(lambda m: scaled({"a": m, "b": [1.0]})["a"].sum())(0.0)
    assert slope == UPDATES["a"].sum()


def test_products_in_f32_and_updates_in_their_dtype():
    u = {"x": jnp.asarray([1.9921875], jnp.bfloat16)}  # one bit below 2
    actual = scaled({"x": jnp.float32(1.00390625)}, u)["x"]  # this factor is 1 in bf16
    assert actual.dtype == jnp.bfloat16
    assert float(actual[0]) == 2
    halved = scaled({"x": np.full(1, 0.5)}, {"x": jnp.asarray([3.0], jnp.float16)})["x"]
    assert halved.dtype == jnp.float16


def test_a_stateless_transformation_of_no_size():
    assert jax.tree.leaves(scale_by_tree(by_path({"": 1.0})).init(UPDATES)) == []


def test_a_chain_tells_optax_what_in_its_state_is_like_the_parameters():
    rule = optax.chain(optax.trace(0.9), scale_by_tree({"a": 1.0, "b": [2.0]}))
    found = optax.tree.map_params(rule, lambda _: "like", rule.init(UPDATES))
    assert jax.tree.leaves(found) == ["like"] * 2


def test_masked_and_partitioned():
    times = scale_by_tree({"a": 2.0, "b": [5.0]})
    only_a = optax.masked(times, by_path({"a": True}, default=False))
    updates, _ = only_a.update(UPDATES, only_a.init(UPDATES))
    np.testing.assert_array_equal(updates["a"], 2 * UPDATES["a"])
    np.testing.assert_array_equal(updates["b"][0], 1)
    only_b = optax.partition({"x": times, "y": optax.identity()}, by_path({"b": "x"}, default="y"))
    updates, _ = only_b.update(UPDATES, only_b.init(UPDATES))
    np.testing.assert_array_equal(updates["a"], UPDATES["a"])
    np.testing.assert_array_equal(updates["b"][0], 5)


def test_hyperparameter_that_is_injected():
    def build(rate, multiplier):
        return optax.chain(optax.sgd(rate), scale_by_tree(by_path({"a": multiplier}, default=1.0)))

    optimizer = optax.inject_hyperparams(build)(rate=lambda count: 0.5**count, multiplier=3.0)
    state = optimizer.init(UPDATES)
    for count in range(2):
        updates, state = jax.jit(optimizer.update)(UPDATES, state)
        np.testing.assert_allclose(updates["a"], -3 * 0.5**count * UPDATES["a"])
        np.testing.assert_allclose(updates["b"][0], -(0.5**count))
