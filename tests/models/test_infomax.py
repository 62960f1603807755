"""The encoder of Deep InfoMax: its shapes, what a location sees, its pooling."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models import InfoMaxEncoder
from jaxgen.models.infomax import max_pool


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def encoder(x, **settings):
    model = InfoMaxEncoder(6, **settings)
    params = jax.jit(model.init)(jax.random.key(0), x)
    return jax.jit(partial(model.apply, params))


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        ((4, 4, 1), (2, 2, 3)),
        ((8, 8, 1), (4, 4, 3)),
        ((28, 28, 1), (4, 4, 12)),
        ((16, 32, 3), (2, 4, 12)),
    ],
)
def test_shapes_and_every_example_by_itself(shape, features):
    x = normal((3, *shape))
    encode = encoder(x, width=3)
    encoding = encode(x)
    assert encoding.features.shape == (3, *features)
    assert encoding.code.shape == (3, 6)
    assert 0.1 < float(encoding.code.std()) < 10
    turned = encode(x[::-1])
    np.testing.assert_allclose(turned.code[::-1], encoding.code, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda x: encode(x).code[1].sum())(x)
    assert jnp.abs(gradient[1]).max() > 1e-4
    np.testing.assert_array_equal(gradient[jnp.array([0, 2])], 0)


def test_a_location_sees_its_patch_and_the_code_sees_everything():
    x = normal((1, 16, 16, 1))
    encode = encoder(x, width=8)
    seen = jax.grad(lambda x: jnp.sum(encode(x).features[0, 0, 0] ** 2))(x)[0, ..., 0]
    rows, columns = np.nonzero(seen)
    # Two convolutions, the second on pixels of 2 x 2: 4 + 2 + 1 pixels from the corner.
    assert max(rows) < 7
    assert max(columns) < 7
    assert (seen[:4, :4] != 0).mean() > 0.5
    code = jax.grad(lambda x: jnp.sum(encode(x).code ** 2))(x)[0, ..., 0]
    assert (code[::8] != 0).any()
    assert (code[12:, 12:] != 0).any()


def test_a_batch_norm_mixes_examples_and_none_keeps_the_scale():
    x = normal((3, 8, 8, 1))
    model = InfoMaxEncoder(6, 4, partial(nn.BatchNorm, use_running_average=False))
    params = jax.jit(model.init)(jax.random.key(0), x)

    def code(x):
        return model.apply(params, x, mutable=["batch_stats"])[0].code[0].sum()

    assert jnp.abs(jax.grad(code)(x)[1]).max() > 1e-5
    plain = encoder(x, width=4, norm=None)
    # A power of two, so that products may round.
    np.testing.assert_allclose(plain(4 * x).code, 4 * plain(x).code, rtol=1e-4, atol=1e-5)


def test_computes_in_the_dtype_of_its_input():
    encode = encoder(normal((2, 8, 8, 1)), width=4)
    half = encode(normal((2, 8, 8, 1)).astype(jnp.bfloat16))
    assert {half.features.dtype, half.code.dtype} == {jnp.dtype(jnp.bfloat16)}


def test_refuses_what_are_no_images():
    with pytest.raises(ValueError, match=r"x \(2, 8, 8\); expected images"):
        InfoMaxEncoder(6).init(jax.random.key(0), jnp.ones((2, 8, 8)))


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 7, 5, 1), (1, 1, 1, 2)])
def test_max_pool_is_flax_s(shape):
    x, weights = normal(shape), jnp.cos(jnp.arange(100.0))

    def ours(pool, x):
        y = pool(x)
        return jnp.sum(y.ravel() * weights[: y.size]), y

    def flax(x):
        return nn.max_pool(x, (2, 2), (2, 2), "SAME")

    (_, expected), slope = jax.value_and_grad(partial(ours, flax), has_aux=True)(x)
    (_, actual), gradient = jax.value_and_grad(partial(ours, max_pool), has_aux=True)(x)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_allclose(gradient, slope)
