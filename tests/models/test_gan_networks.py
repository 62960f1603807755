from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import (
    DCGANCritic,
    DCGANGenerator,
    ResidualBlock,
    ResidualCritic,
    ResidualGenerator,
    project,
)
from jaxgen.models.residual import double, halve

NORMS = {
    "none": None,
    "layer": partial(nn.GroupNorm, num_groups=1),
    "batch": partial(nn.BatchNorm, use_running_average=False),
}


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("network", [DCGANGenerator, ResidualGenerator])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (16, 32, 3)])
def test_generators_make_images_of_the_shape_in_range(network, shape):
    z, context = normal((5, 6)), jnp.eye(3)[jnp.array([0, 1, 2, 0, 1])]
    model = network(shape, width=4)
    x, params = jax.jit(model.init_with_output)(jax.random.key(0), z, context)
    assert x.shape == (5, *shape)
    assert jnp.abs(x).max() <= 1
    assert 0.2 < float(x.std()) < 0.95  # neither dead nor saturated
    moved = jax.jit(model.apply)(params, z, context[::-1])
    assert (jnp.abs(moved - x).max(axis=(1, 2, 3)) > 1e-3).tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]
    x = jax.eval_shape(model.apply, params, z.astype(jnp.bfloat16), context)
    assert x.dtype == jnp.bfloat16


@pytest.mark.parametrize("network", [DCGANCritic, ResidualCritic])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 2)])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_critics_judge_every_example_by_itself(network, shape, norm):
    x = normal((4, *shape))
    model = network(width=8, norm=NORMS[norm])
    scores, params = jax.jit(model.init_with_output)(jax.random.key(0), x)
    assert scores.shape == (4,)
    apply = jax.jit(model.apply)
    gradient = jax.jit(jax.grad(lambda x: apply(params, x)[1]))(x)
    assert jnp.abs(gradient[1]).max() > 1e-4
    np.testing.assert_array_equal(gradient[jnp.array([0, 2, 3])], 0)
    np.testing.assert_allclose(apply(params, x[::-1])[::-1], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [DCGANCritic, ResidualCritic])
def test_batch_normalization_mixes_examples(model):
    model = model(width=8, norm=NORMS["batch"])
    x = normal((4, 16, 16, 1))
    params = jax.jit(model.init)(jax.random.key(0), x)

    def score(x):
        return model.apply(params, x, mutable=["batch_stats"])[0][1]

    gradient = jax.jit(jax.grad(score))(x)
    assert jnp.abs(gradient[0]).max() > 1e-5


@pytest.mark.parametrize("network", [DCGANGenerator, ResidualGenerator])
def test_batch_statistics_are_kept_and_used(network):
    """After many looks at one batch its averages are the batch's own statistics."""
    z = normal((64, 6))
    trains = network((8, 8, 1), width=4, norm=NORMS["batch"])
    samples = network((8, 8, 1), width=4, norm=partial(nn.BatchNorm, use_running_average=True))
    variables = jax.jit(trains.init)(jax.random.key(0), z)
    look = jax.jit(partial(trains.apply, mutable=["batch_stats"]))
    sample = jax.jit(samples.apply)
    before = sample(variables, z)
    for _ in range(600):
        x, new = look(variables, z)
        variables = {**variables, **new}
    after = sample(variables, z)
    assert jnp.abs(before - x).max() > 0.1
    np.testing.assert_allclose(after, x, atol=0.02)


def test_projection_is_linear_in_features_and_class(exact_products):
    class Head(nn.Module):
        @nn.compact
        def __call__(self, h, context):
            return project(h, context)

    h, context = normal((4, 3)), jnp.eye(2)[jnp.array([0, 1, 1, 0])]
    params = Head().init(jax.random.key(0), h, context)
    kernel, bias = params["params"]["score"]["kernel"], params["params"]["score"]["bias"]
    embedding = params["params"]["embed"]["kernel"]
    expected = h @ kernel[:, 0] + bias[0] + jnp.sum(embedding[jnp.array([0, 1, 1, 0])] * h, axis=1)
    np.testing.assert_allclose(Head().apply(params, h, context), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [({}, (2, 4, 4, 5)), ({"before": double}, (2, 8, 8, 5)), ({"after": halve}, (2, 2, 2, 5))],
)
def test_a_block_whose_branch_is_zero_is_its_shortcut(sizes, shape, exact_products):
    x = normal((2, 4, 4, 3))
    block = ResidualBlock(5, **sizes)
    params = jax.jit(block.init)(jax.random.key(0), x)
    apply = jax.jit(block.apply)
    assert apply(params, x).shape == shape
    layers = params["params"]
    layers["Conv_1"] = jax.tree.map(jnp.zeros_like, layers["Conv_1"])
    shortcut = jnp.einsum("bhwi,io->bhwo", x, layers["Conv_2"]["kernel"][0, 0])
    change = next(iter(sizes.values()), lambda x: x)
    np.testing.assert_allclose(apply(params, x), change(shortcut), rtol=1e-4, atol=1e-5)


def test_a_first_block_keeps_the_sign_of_an_image():
    """A relu on the image itself would lose half of it."""
    x = -jnp.abs(normal((2, 8, 8, 1)))
    model = ResidualCritic(width=8)
    params = jax.jit(model.init)(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda x: model.apply(params, x).sum()))(x)
    assert jnp.abs(gradient).min() > 0


def test_double_and_halve():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        double(x)[0, :, :, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    )
    np.testing.assert_array_equal(halve(double(x)), x)
    np.testing.assert_array_equal(halve(x).ravel(), [1.5])


def test_too_small_an_image():
    with pytest.raises(ValueError, match=r"shape \(4, 4, 1\); expected sides"):
        DCGANGenerator((4, 4, 1)).init(jax.random.key(0), jnp.ones((1, 2)))
