"""The self-orthogonality module: the identity of signs and angles, and what ReLU does to it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import regularizers as r


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def off_diagonal(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def test_arcsine_is_the_correlation_of_signs_of_isotropic_inputs(x64):
    w = draw((4, 3))
    signs = np.sign(draw((400_000, 4), 1) @ w)
    measured = off_diagonal(signs.T @ signs / len(signs))
    np.testing.assert_allclose(r.arcsine_correlations(w), measured, atol=5e-3)
    np.testing.assert_allclose(r.arcsine_correlations(w), 1 - 2 * r.pairwise_angles(w) / np.pi)


def test_data_form_against_numpy(x64):
    y = 0.2 * draw((50, 4)) + np.arange(4)
    z = np.tanh(10 * (y - y.mean(0)))
    z /= np.sqrt(np.sum(z**2, axis=0))
    np.testing.assert_allclose(r.sign_correlations(y), off_diagonal(z.T @ z))


def test_data_form_tends_to_the_closed_form(x64):
    w = draw((4, 3))
    y = draw((200_000, 4), 1) @ w
    closed = r.arcsine_correlations(w)
    np.testing.assert_allclose(r.sign_correlations(y, 1e-3), closed, atol=1e-2)
    hot = r.sign_correlations(y, 1e3)  # the correlation of the answers themselves
    np.testing.assert_allclose(hot, off_diagonal(np.corrcoef(y.T)), atol=1e-4)


def test_after_relu_an_orthonormal_layer_is_left_alone(x64):
    x = np.maximum(draw((4096, 32)), 0)
    w = np.linalg.qr(draw((32, 16), 1))[0]

    def uncentred(y):
        return r.pairwise_cosines(jnp.tanh(10 * y))

    def penalty(form):
        return lambda w: r.self_orthogonality(form(x @ w), l1=1.0, l2=1.0)

    def size(form):
        return np.mean(np.abs(jax.jit(form)(x @ w)))

    assert size(uncentred) > 5 * size(r.sign_correlations)
    assert size(r.sign_correlations) < 1 / np.sqrt(4096), "what 4096 examples cannot tell from 0"
    pull = {
        f: np.linalg.norm(jax.jit(jax.grad(penalty(f)))(w))
        for f in (uncentred, r.sign_correlations)
    }
    assert pull[r.sign_correlations] < 0.1 * pull[uncentred]


def test_penalty_is_the_means_and_converts_from_sums(x64):
    t = np.array([0.1, -0.5, 0.3])  # k = 3
    matrix = np.eye(3)
    matrix[np.triu_indices(3, 1)] = t
    matrix = matrix + matrix.T - np.eye(3)
    off = matrix[~np.eye(3, dtype=bool)]
    post = 100 * np.sum(off) ** 2 + np.sum(off**2)
    n = 3 * 2
    np.testing.assert_allclose(r.self_orthogonality(t, l1=100 * n**2, l2=n), post)
    np.testing.assert_allclose(r.self_orthogonality(t, l1=2, l2=0), 2 * np.mean(off) ** 2)


def test_gradients_are_finite_differences(x64):
    y, along = 0.1 * draw((7, 3)), draw((7, 3), 1)

    def penalty(y):
        return r.self_orthogonality(r.sign_correlations(y), l1=3.0, l2=1.0)

    penalty, h = jax.jit(penalty), 1e-6
    expected = (penalty(y + h * along) - penalty(y - h * along)) / (2 * h)
    np.testing.assert_allclose(np.sum(jax.grad(penalty)(y) * along), expected, rtol=1e-6)


def test_gradients_are_finite_at_nasty_points():
    y = draw((6, 3)).astype(np.float32)
    cases = {
        "dead": np.zeros_like(y),
        "a dead unit": y * np.array([0, 1, 1], np.float32),
        "constant units": np.where(np.arange(3) > 1, y, np.float32(0.1)),
        "duplicates": np.repeat(y[:, :1], 3, axis=1),
        "saturated": 1e6 * y,
        "one example": y[:1],
    }

    @jax.jit
    @jax.value_and_grad
    def penalty(y):
        return r.self_orthogonality(r.sign_correlations(y), l1=1.0, l2=1.0)

    for what, y in cases.items():
        value, gradient = penalty(y)
        assert np.isfinite(value), what
        assert np.all(np.isfinite(gradient)), what
    assert penalty(cases["dead"])[0] == 0
    assert penalty(cases["constant units"])[0] == 0
    for still in ("a dead unit", "constant units"):
        np.testing.assert_array_equal(penalty(cases[still])[1][:, 0], 0)


def test_closed_form_at_parallel_columns():
    w = np.repeat(draw((3, 1)).astype(np.float32), 2, axis=1) * np.array([1, 2], np.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda w: r.arcsine_correlations(w)[0]))(w)
    np.testing.assert_allclose(value, 0.9991, atol=1e-4)
    np.testing.assert_array_equal(gradient, 0)
