"""Values by path: rule order, misspelled rules, layer numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.optimizers import by_path, layer_wise_decay, scale_by_tree

PARAMS = {
    "embed": {"table": jnp.ones((5, 2))},
    "blocks": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for _ in range(2)],
    "head": {"kernel": jnp.ones((2, 3))},
}


def test_first_rule_that_matches_wins():
    values = by_path({r"^blocks/1/": 3, "kernel$": 2, "table|bias": 1})(PARAMS)
    assert values == {
        "embed": {"table": 1},
        "blocks": [{"kernel": 2, "bias": 1}, {"kernel": 3, "bias": 3}],
        "head": {"kernel": 2},
    }


def test_default_fills_the_rest():
    assert by_path({"head": True}, default=False)(PARAMS) == {
        "embed": {"table": False},
        "blocks": [{"kernel": False, "bias": False}] * 2,
        "head": {"kernel": True},
    }


def test_paths_of_a_flax_network():
    params = nn.Sequential([nn.Dense(2), nn.Dense(1)]).init(jax.random.key(0), jnp.ones((1, 3)))
    values = by_path({"^params/layers_0/kernel$": 1}, default=0)(params)
    assert values["params"]["layers_0"] == {"kernel": 1, "bias": 0}


def test_as_labels_and_as_mask():
    optimizer = optax.chain(
        optax.partition(
            {"fast": optax.sgd(1.0), "slow": optax.sgd(0.1)},
            by_path({"head": "fast"}, default="slow"),
        ),
        optax.add_decayed_weights(0.5, mask=by_path({"kernel": True}, default=False)),
    )
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["head"]["kernel"], -1 + 0.5)
    np.testing.assert_allclose(updates["blocks"][1]["kernel"], -0.1 + 0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["blocks"][1]["bias"], -0.1, rtol=1e-6)


def test_rules_of_leaves_that_a_group_lacks():
    rules = by_path({"head": 2.0, "bias": 3.0, "": 1.0})
    hidden = jax.tree.map(lambda p: p if p.ndim == 1 else optax.MaskedNode(), PARAMS)
    assert jax.tree.leaves(rules(hidden)) == [3.0, 3.0]
    whole = PARAMS | {"head": optax.MaskedNode()}  # a placeholder of a subtree
    assert jax.tree.leaves(rules(whole)) == [3.0, 1.0, 3.0, 1.0, 1.0]


def test_a_tree_without_leaves():
    assert by_path({"head": 1})({"a": []}) == {"a": []}


def layers(number):
    return layer_wise_decay({"embed": 0, r"blocks/(\d+)": number, "head": 3}, 0.5, 3)


def test_layers_decay_from_the_head_down():
    assert layers(lambda found: 1 + int(found[1]))(PARAMS) == {
        "embed": {"table": 0.125},
        "blocks": [{"kernel": 0.25, "bias": 0.25}, {"kernel": 0.5, "bias": 0.5}],
        "head": {"kernel": 1.0},
    }


def test_function_of_the_whole_path():
    depth = layer_wise_decay({"^.*": lambda found: found[0].count("/")}, 0.1, 2)(PARAMS)
    assert depth["head"]["kernel"] == pytest.approx(0.1)
    assert depth["blocks"][0]["bias"] == 1


def test_stacked_layers_equal_separate_ones():
    separate = [{"kernel": jnp.full((2, 2), i + 1.0)} for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *separate)
    apart = scale_by_tree(layer_wise_decay({r"^(\d)": lambda found: int(found[1])}, 0.5, 3))
    together = scale_by_tree(layer_wise_decay({"kernel": range(3)}, 0.5, 3))
    expected, _ = apart.update(separate, optax.EmptyState())
    actual, _ = together.update(stacked, optax.EmptyState())
    np.testing.assert_array_equal(actual["kernel"], np.stack([leaf["kernel"] for leaf in expected]))
    np.testing.assert_array_equal(actual["kernel"][:, 0, 0], [0.125, 0.5, 1.5])
