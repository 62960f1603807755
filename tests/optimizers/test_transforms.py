"""Every public function under jit, grad, vmap, pmap and shard_map, in f32, bf16 and f64."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxgen import optimizers


def draw(rng):
    """Parameters and three gradients of each."""

    def tree(*lead):
        return {
            "kernel": rng.standard_normal((*lead, 3, 4)),
            "bias": rng.standard_normal((*lead, 4)),
        }

    return tree(), tree(3)


def run(optimizer, params, gradients, **extra_args):
    """Three steps: the parameters after them, and the optimizer's state."""
    state = optimizer.init(params)
    for i in range(3):
        gradient = jax.tree.map(lambda g, i=i: g[i], gradients)
        updates, state = optimizer.update(gradient, state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params, state


momentum = optax.chain(optax.trace(0.5), optax.scale(-0.1))

# What is not a transformation itself is shown inside one.
CASES = {
    "accumulate": (partial(run, optimizers.accumulate(momentum, 2), weight=3.0), draw),
    "by_path": (
        partial(run, optimizers.scale_by_tree(optimizers.by_path({"bias": 2.0, "": 0.5}))),
        draw,
    ),
    "clip_by_leaf_l1_norm": (partial(run, optimizers.clip_by_leaf_l1_norm(2.0)), draw),
    "clip_by_leaf_norm": (partial(run, optimizers.clip_by_leaf_norm(2.0)), draw),
    "hidden_accumulation": (partial(run, optimizers.hidden_accumulation(momentum, 2, 0.7)), draw),
    "layer_wise_decay": (
        partial(
            run,
            optimizers.scale_by_tree(
                optimizers.layer_wise_decay({"bias": 1, "kernel": [0, 1, 2]}, 0.5, 2)
            ),
        ),
        draw,
    ),
    "map_gradients": (
        partial(run, optimizers.map_gradients({"": lambda g: g / (1 + g * g)})),
        draw,
    ),
    "scale_by_tree": (
        partial(run, optimizers.scale_by_tree({"kernel": np.full((3, 1), 0.5), "bias": 2})),
        draw,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_works_everywhere(name, works_everywhere):
    works_everywhere(*CASES[name])


def test_the_table_is_complete():
    functions = {name for name in optimizers.__all__ if not name.endswith("State")}
    assert functions == CASES.keys()
