"""Orthogonality of a convolution against the singular values of its matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxgen import regularizers as r

SIZE = {1: 8, 2: 8, 3: 9}  # of an image, by stride; more than twice a kernel


def orthonormal(n, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def matrix(kernel, stride=1):
    """The convolution with circular padding applied to every unit image: [outputs, inputs]."""
    height, width, inputs, outputs = kernel.shape
    size, places = SIZE[stride], SIZE[stride] // stride
    found = np.zeros((places, places, outputs, size, size, inputs))
    for row, column, i, j in np.ndindex(places, places, height, width):
        at = (stride * row + i) % size, (stride * column + j) % size
        found[row, column, :, *at] += kernel[i, j].T
    return found.reshape(places**2 * outputs, -1)


def singular_values(kernel, stride=1):
    return np.linalg.svd(matrix(kernel, stride), compute_uv=False)


def by_pixel(kernel, stride):
    """||A A^T - I||_F^2 of the circulant matrix, or of its transpose, over the number of pixels."""
    return np.sum((singular_values(kernel, stride) ** 2 - 1) ** 2) / (SIZE[stride] // stride) ** 2


def mixed_shifts(inputs, outputs):
    """Orthonormal mixing, a shift of its own for each channel, another mixing: orthogonal."""
    shifts = np.zeros((3, 3, 6, 6))
    for channel, (i, j) in enumerate([(0, 0), (1, 2), (2, 1), (1, 1), (0, 2), (2, 2)]):
        shifts[i, j, channel, channel] = 1
    kernel = np.einsum("ic,hwcd,do->hwio", orthonormal(6), shifts, orthonormal(6, 1))
    return kernel[:, :, :inputs, :outputs]


def strided(inputs, outputs):
    """2 x 2 blocks of pixels, mixed by a part of an orthonormal matrix."""
    mixing = orthonormal(max(4 * inputs, outputs))[: 4 * inputs, :outputs]
    return mixing.reshape(2, 2, inputs, outputs)


ORTHOGONAL = {
    "delta": (np.pad(orthonormal(4)[None, None], [(1, 1), (1, 1), (0, 0), (0, 0)]), 1),
    "square": (mixed_shifts(6, 6), 1),
    "rows": (mixed_shifts(6, 4), 1),
    "columns": (mixed_shifts(4, 6), 1),
    "strided rows": (strided(2, 5), 2),
    "strided columns": (strided(1, 6), 2),
}


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_zero_iff_all_singular_values_are_one(name, x64):
    kernel, stride = ORTHOGONAL[name]
    np.testing.assert_allclose(singular_values(kernel, stride), 1, atol=1e-12)
    penalty = jax.jit(lambda k: r.convolution_orthogonality(k, stride))
    assert penalty(kernel) < 1e-24
    moved = kernel + 0.03 * np.random.default_rng(2).standard_normal(kernel.shape)
    np.testing.assert_allclose(penalty(moved), by_pixel(moved, stride), rtol=1e-9)
    assert penalty(1.01 * kernel) > 1e-3, "lengths count"


@pytest.mark.parametrize("shape, stride", [((3, 2, 2, 5), 1), ((3, 3, 1, 3), 2), ((3, 3, 2, 3), 3)])
def test_is_the_gram_matrix_of_the_operator(shape, stride, x64):
    kernel = 0.3 * np.random.default_rng(0).standard_normal(shape)
    penalty = jax.jit(lambda k: r.convolution_orthogonality(k.reshape(shape), stride))
    np.testing.assert_allclose(penalty(kernel), by_pixel(kernel, stride), rtol=1e-9)
    numeric = optimize.approx_fprime(kernel.ravel(), lambda k: float(penalty(k)), 1e-7)
    gradient = jax.grad(penalty)(jnp.asarray(kernel)).ravel()
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_orthonormal_filters_are_not_enough(x64):
    """What the filters' penalty does not see: the singular values of the convolution."""
    w = np.linalg.qr(np.random.default_rng(0).standard_normal((27, 3)))[0]
    kernel = w.reshape(3, 3, 3, 3)
    values = singular_values(kernel)
    assert r.soft_orthogonality(r.filter_matrix(kernel)) < 1e-24
    assert values.min() < 0.5 and values.max() > 1.5
    assert r.convolution_orthogonality(kernel) > 0.1


def test_descent_makes_a_convolution_orthogonal(x64):
    kernel = jnp.asarray(0.2 * np.random.default_rng(0).standard_normal((3, 3, 4, 3)))
    step = jax.jit(lambda k: k - 0.05 * jax.grad(r.convolution_orthogonality)(k))
    for _ in range(500):
        kernel = step(kernel)
    np.testing.assert_allclose(singular_values(np.asarray(kernel)), 1, atol=0.03)
