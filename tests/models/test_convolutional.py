import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import ConvDecoder, ConvEncoder


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def shapes(params):
    return {
        name: layer["kernel"].shape for name, layer in sorted(params["params"].items()) if layer
    }


# Sides of the last stage: 4, 7, 4 x 8.
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (16, 32, 3)])
def test_the_pair_goes_to_latents_and_back(shape):
    x, context = normal((3, *shape)), jnp.eye(2)[jnp.array([0, 1, 1])]
    for context_ in (None, context):
        encoder, decoder = ConvEncoder(5, width=4), ConvDecoder(shape, width=4)
        z, params = jax.jit(encoder.init_with_output)(jax.random.key(0), x, context_)
        assert z.shape == (3, 5)
        y, params = jax.jit(decoder.init_with_output)(jax.random.key(1), z, context_)
        assert y.shape == x.shape
    apply = jax.jit(decoder.apply)
    moved = jnp.abs(apply(params, z, context[::-1]) - y).max(axis=(1, 2, 3))
    assert (moved > 1e-3).tolist() == [True, False, True]
    np.testing.assert_array_equal(apply(params, z.at[0].add(1.0), context)[1:], y[1:])
    assert jax.eval_shape(apply, params, z.astype(jnp.bfloat16), context).dtype == jnp.bfloat16


def test_layers_are_those_of_the_post_with_4x4_for_the_strides():
    """Of 28 x 28: 7 x 7 x 64 after two stages of 32 and 64 channels."""
    x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    z = jax.ShapeDtypeStruct((1, 20), jnp.float32)
    encoder = jax.eval_shape(ConvEncoder(40).init, jax.random.key(0), x)
    assert shapes(encoder) == {
        "ConvDown_0": (4, 4, 1, 32),
        "Conv_0": (3, 3, 32, 32),
        "ConvDown_1": (4, 4, 32, 64),
        "Conv_1": (3, 3, 64, 64),
        "Dense_0": (7 * 7 * 64, 40),
    }
    decoder = jax.eval_shape(ConvDecoder((28, 28, 1)).init, jax.random.key(0), z)
    assert shapes(decoder) == {
        "Dense_0": (20, 7 * 7 * 64),
        "Conv_0": (3, 3, 64, 64),
        "ConvUp_0": (4, 4, 64, 64),
        "Conv_1": (3, 3, 64, 32),
        "ConvUp_1": (4, 4, 32, 32),
        "Conv_2": (3, 3, 32, 1),
    }


def test_outputs_have_no_last_activation_and_start_at_the_scale_of_their_input():
    z = ConvEncoder(64, width=8)
    x = normal((8, 16, 16, 1))
    z, _ = jax.jit(z.init_with_output)(jax.random.key(0), x)
    y, _ = jax.jit(ConvDecoder((16, 16, 1), width=8).init_with_output)(jax.random.key(1), z)
    for output in (z, y):
        assert 0.3 < float(output.std()) < 4
        assert float(output.min()) < -0.5 < 0.5 < float(output.max())


def test_every_pixel_reaches_the_latents_and_every_latent_the_pixels():
    x = normal((1, 8, 8, 2))
    encoder, decoder = ConvEncoder(3, width=8), ConvDecoder((8, 8, 2), width=8)
    z, encoding = jax.jit(encoder.init_with_output)(jax.random.key(0), x)
    decoding = jax.jit(decoder.init)(jax.random.key(1), z)
    by_pixel = jax.jit(jax.grad(lambda x: jnp.sum(encoder.apply(encoding, x))))(x)
    by_latent = jax.jit(jax.jacrev(lambda z: jnp.mean(decoder.apply(decoding, z), (0, 1, 2))))(z)
    assert (by_pixel != 0).all()
    assert (by_latent != 0).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((7, 7, 1), r"shape \(7, 7, 1\); expected sides above 7"),
        ((18, 18, 1), r"shape \(18, 18, 1\); expected sides of at most 7 times"),
    ],
)
def test_sizes_that_do_not_halve(shape, message):
    with pytest.raises(ValueError, match=message):
        ConvEncoder(2).init(jax.random.key(0), jnp.ones((1, *shape)))
    with pytest.raises(ValueError, match=message):
        ConvDecoder(shape).init(jax.random.key(0), jnp.ones((1, 2)))
