import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import MLP
from jaxgen.models.mlp import join


def test_join_vectors_and_images():
    x, context = jnp.ones((2, 3)), jnp.full((2, 1), 7.0)
    assert join(x, None) is x
    np.testing.assert_array_equal(join(x, context), [[1, 1, 1, 7]] * 2)
    image, same = jnp.ones((2, 4, 6, 3)), jnp.full((2, 4, 6, 2), 7.0)
    joined = join(image, same)
    np.testing.assert_array_equal(joined[..., :3], image)
    np.testing.assert_array_equal(joined[..., 3:], same)


def test_join_spreads_a_vector_over_the_positions_of_its_own_image():
    joined = join(jnp.zeros((2, 2, 3, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    assert joined.shape == (2, 2, 3, 3)
    np.testing.assert_array_equal(joined[0, ..., 1:].reshape(6, 2), [[1, 2]] * 6)
    np.testing.assert_array_equal(joined[1, ..., 1:].reshape(6, 2), [[3, 4]] * 6)


@pytest.mark.parametrize("scale", [2, 3])
def test_join_turns_the_blocks_of_a_finer_image_into_channels(scale):
    h, w, k = 2, 3, 2
    fine = np.arange(2 * scale * h * scale * w * k, dtype=np.float32)
    fine = fine.reshape(2, scale * h, scale * w, k)
    joined = join(jnp.zeros((2, h, w, 1)), jnp.asarray(fine))
    assert joined.shape == (2, h, w, 1 + scale**2 * k)
    for i in range(h):
        for j in range(w):
            block = fine[:, scale * i : scale * (i + 1), scale * j : scale * (j + 1)]
            np.testing.assert_array_equal(joined[:, i, j, 1:], block.reshape(2, -1))


def test_join_takes_the_dtype_of_x():
    x = jnp.ones((2, 3), jnp.bfloat16)
    assert join(x, jnp.ones((2, 1))).dtype == jnp.bfloat16
    assert join(x, jnp.ones((2, 1), jnp.int32)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("x", "context"),
    [
        ((2, 3), (3, 1)),
        ((2, 3), (2,)),
        ((2, 3), (2, 4, 4, 1)),
        ((2, 4, 4, 1), (1, 5)),
        ((2, 4, 4, 1), (3, 5)),
        ((2, 4, 4, 1), (2, 2, 2, 5)),  # coarser
        ((2, 4, 4, 1), (2, 8, 12, 5)),  # another shape
        ((2, 4, 4, 1), (2, 6, 6, 5)),  # no whole multiple
        ((2, 4, 4, 1), (1, 8, 8, 5)),
        ((2, 4, 4, 1), (2, 4, 5)),
    ],
)
def test_join_names_the_shapes_that_do_not_fit(x, context):
    with pytest.raises(ValueError, match="does not fit") as error:
        jax.eval_shape(join, jnp.zeros(x), jnp.zeros(context))
    assert f"context {context} does not fit x {x}" in str(error.value)


def test_mlp_starts_awake():
    """Every kernel starts at the scale that keeps the activations' scale; every bias at zero."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1000, 64)), jnp.float32)
    y, params = MLP(64, (64, 64)).init_with_output(jax.random.key(0), x)
    deviations = [float(jnp.std(params["params"][f"Dense_{i}"]["kernel"])) for i in range(3)]
    np.testing.assert_allclose(np.square(deviations) * 64, [2, 2, 1], rtol=0.1)
    assert 0.7 < float(jnp.std(y)) < 1.4


def test_mlp_is_its_equation(exact_products):
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    context = np.ones((5, 2), np.float32)
    network = MLP(4, (6, 7))
    params = network.init(jax.random.key(0), x, context)
    rng = np.random.default_rng(1)
    awake = jax.tree.map(lambda p: p + rng.standard_normal(p.shape, np.float32), params)
    h = np.concatenate([x, context], axis=1)
    for i in range(3):
        dense = awake["params"][f"Dense_{i}"]
        h = h @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
        h = np.maximum(h, 0) if i < 2 else h
    np.testing.assert_allclose(network.apply(awake, x, context), h, rtol=1e-4, atol=1e-4)


def test_mlp_activation_final_and_last_init(exact_products):
    x = jnp.linspace(-1, 1, 6).reshape(3, 2)
    network = MLP(2, (4,), nn.tanh, lambda h: -nn.relu(h), nn.initializers.ones)
    params = network.init(jax.random.key(0), x)
    np.testing.assert_array_equal(params["params"]["Dense_1"]["kernel"], np.ones((4, 2)))
    hidden = np.tanh(np.asarray(x) @ np.asarray(params["params"]["Dense_0"]["kernel"]))
    expected = -np.maximum(hidden @ np.ones((4, 2)), 0)
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_mlp_computes_in_the_dtype_of_its_input():
    network, x = MLP(2, (4,)), jnp.ones((1, 3), jnp.bfloat16)
    params = network.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert network.apply(params, x).dtype == jnp.bfloat16
