"""Operations on each leaf's own gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.optimizers import by_path, clip_by_leaf_l1_norm, clip_by_leaf_norm, map_gradients

CLIPS = {clip_by_leaf_norm: 2, clip_by_leaf_l1_norm: 1}


def gradients():
    rng = np.random.default_rng(0)
    return {"large": rng.standard_normal((20, 30)), "small": 0.01 * rng.standard_normal(7)}


def apply(transformation, tree):
    return transformation.update(tree, transformation.init(tree), tree)[0]


@pytest.mark.parametrize(("clip", "order"), CLIPS.items())
@pytest.mark.usefixtures("x64")
def test_only_the_leaf_that_is_outside_is_shrunk(clip, order):
    tree = gradients()
    actual = apply(clip(1.5), jax.tree.map(jnp.asarray, tree))
    norm = np.linalg.norm(tree["large"].ravel(), order)
    np.testing.assert_allclose(actual["large"], tree["large"] * 1.5 / norm, rtol=1e-12)
    np.testing.assert_array_equal(actual["small"], tree["small"])


@pytest.mark.parametrize("clip", CLIPS)
def test_zero_is_left_alone_and_differentiable(clip):
    g = jnp.zeros(3)
    np.testing.assert_array_equal(apply(clip(1.0), g), 0)
    slopes = jax.jit(jax.jacobian(lambda g: apply(clip(1.0), g)))(g)
    np.testing.assert_array_equal(slopes, np.eye(3))


@pytest.mark.parametrize("clip", CLIPS)
def test_huge_gradient_is_not_poison(clip):
    tree = {"x": jnp.full(4, 1e30), "y": jnp.ones(2) / 4}
    actual = apply(clip(1.0), tree)
    assert np.isfinite(actual["x"]).all()
    assert np.abs(actual["x"]).max() <= 1
    np.testing.assert_array_equal(actual["y"], 0.25)


@pytest.mark.parametrize("clip", CLIPS)
def test_norm_of_bf16_is_taken_in_f32(clip):
    g = jnp.full(1000, 1.0, jnp.bfloat16)
    actual = apply(clip(1.0), g)
    assert actual.dtype == jnp.bfloat16
    norm = np.linalg.norm(np.ones(1000), CLIPS[clip])
    np.testing.assert_array_equal(actual, jnp.asarray(np.float32(1 / norm), jnp.bfloat16))


@pytest.mark.parametrize("clip", CLIPS)
def test_some_leaves_only(clip):
    tree = jax.tree.map(jnp.asarray, gradients())
    some = optax.masked(clip(1e-3), by_path({"small": True}, default=False))
    actual = apply(some, tree)
    np.testing.assert_array_equal(actual["large"], tree["large"])
    assert np.abs(actual["small"]).max() < 1e-3


@pytest.mark.parametrize("clip", CLIPS)
def test_norm_that_is_injected(clip):
    optimizer = optax.inject_hyperparams(clip)(max_norm=1.0)
    tree = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients())
    actual, _ = jax.jit(optimizer.update)(tree, optimizer.init(tree))
    expected = apply(clip(1.0), tree)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), actual, expected)


def test_function_by_path():
    tree = {"a": jnp.array([1.0, -4.0]), "b": [jnp.array([2.0], jnp.bfloat16)]}
    actual = apply(map_gradients({"a": jnp.sign, "b/0": lambda g: g.astype(jnp.float32) / 4}), tree)
    np.testing.assert_array_equal(actual["a"], [1, -1])
    assert actual["b"][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual["b"][0], 0.5)
    kept = apply(map_gradients({"a": jnp.sign}, default=lambda g: g), tree)
    np.testing.assert_array_equal(kept["b"][0], 2)
