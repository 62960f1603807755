import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from jaxgen import metrics as m

WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def terms(x, y, size=11):
    """l and c s of two grey images by a dense window."""
    at = np.arange(size) - (size - 1) / 2
    line = np.exp(-(at**2) / (2 * (1.5 * size / 11) ** 2))
    window = np.outer(line, line) / line.sum() ** 2
    patches = [
        np.lib.stride_tricks.sliding_window_view(z, (size, size)).reshape(-1, size**2)
        for z in (x, y)
    ]
    w = window.ravel()
    a, b = (p @ w for p in patches)
    da, db = patches[0] - a[:, None], patches[1] - b[:, None]
    c1, c2 = 1e-4, 9e-4
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    return luminance, (2 * (da * db) @ w + c2) / (da**2 @ w + db**2 @ w + c2)


def pair(shape=(2, 32, 32, 1), seed=0):
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.uniform(size=shape), (0, 2, 2, 0))
    x = (x - x.min()) / (x.max() - x.min())
    return x, np.clip(x + 0.15 * rng.normal(size=shape), 0, 1)


def test_ssim_against_a_dense_window(x64):
    x, y = pair((2, 16, 20, 3))
    expected = [
        np.mean([np.prod(terms(a[..., c], b[..., c]), axis=0) for c in range(3)])
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(m.ssim(x, y, low=0, high=1), expected, rtol=1e-10)


def test_ms_ssim_by_the_definition_with_shrinking_windows(x64):
    x, y = pair((1, 64, 64, 2))
    found = []
    for c in range(2):
        a, b, product = x[0, ..., c], y[0, ..., c], 1.0
        for scale, weight in enumerate(WEIGHTS):
            luminance, structure = terms(a, b, min(11, len(a)))
            last = scale == 4
            product *= np.mean(luminance * structure if last else structure) ** weight
            a, b = (z.reshape(len(z) // 2, 2, -1, 2).mean(axis=(1, 3)) for z in (a, b))
        found.append(product)
    np.testing.assert_allclose(m.ms_ssim(x, y, low=0, high=1), [np.mean(found)], rtol=1e-9)


def test_one_scale_of_ms_ssim_is_ssim(x64):
    x, y = pair()
    one = m.ms_ssim(x, y, low=0, high=1, weights=(1.0,))
    np.testing.assert_allclose(one, m.ssim(x, y, low=0, high=1), rtol=1e-12)


@pytest.mark.parametrize("function", [m.ssim, m.ms_ssim])
def test_properties(function, x64):
    x, y = pair()
    value = function(x, y, low=0, high=1)
    assert value.shape == (2,)
    assert ((value > 0) & (value < 1)).all()
    np.testing.assert_allclose(function(y, x, low=0, high=1), value, rtol=1e-12)
    np.testing.assert_allclose(function(x, x, low=0, high=1), 1, rtol=1e-12)
    # The range is part of the number: the same images in three ranges agree.
    np.testing.assert_allclose(function(2 * x - 1, 2 * y - 1, low=-1, high=1), value, rtol=1e-9)
    np.testing.assert_allclose(function(255 * x, 255 * y, low=0, high=255), value, rtol=1e-9)
    flipped = function(x[:, ::-1], y[:, ::-1], low=0, high=1)
    np.testing.assert_allclose(flipped, value, rtol=1e-9)


@pytest.mark.parametrize("function", [m.ssim, m.ms_ssim])
def test_gradients_against_differences(function, x64):
    x, y = pair((1, 16, 16, 1))
    inner = 0.1 + 0.8 * jnp.asarray(y)  # a difference must not leave the range
    check_grads(
        jax.jit(lambda y: function(x, y, low=0, high=1)),
        (inner,),
        order=1,
        modes=["rev"],
        rtol=1e-4,
    )


def test_gradient_where_the_structure_is_opposite():
    """The mean of c s below 0 counts as 0, without the infinite slope of a root."""
    x = np.random.default_rng(0).uniform(size=(1, 32, 32, 1)).astype(np.float32)
    assert m.ssim(x, 1 - x, low=0, high=1) < 0

    def total(y):
        return jnp.sum(m.ms_ssim(x, y, low=0, high=1))

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(1 - x))
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("function", [m.ssim, m.ms_ssim])
def test_not_a_number(function):
    x, y = (z.astype(np.float32) for z in pair((2, 16, 16, 1)))
    y[1, 3, 4] = np.nan
    found = jax.jit(lambda x, y: function(x, y, low=0, high=1))(x, y)
    np.testing.assert_array_equal(np.isnan(found), [False, True])


def test_fewer_scales_for_small_images():
    x, y = pair((1, 28, 28, 1))
    assert m.ms_ssim(x, y, low=0, high=1, weights=(0.2, 0.3, 0.5)).shape == (1,)
