"""Orthogonality penalties against numpy, their gradients, and their nasty points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import regularizers as r

SHAPES = [(5, 3), (4, 4), (3, 6)]  # tall, square, wide
PENALTIES = {
    "soft": r.soft_orthogonality,
    "off_diagonal": r.off_diagonal,
    "angles_alone": lambda w: r.off_diagonal(r.unit_columns(w)),
    "coherence": r.mutual_coherence,
    "srip": lambda w: r.srip(w, r.srip_vector(jax.random.key(0), w))[0],
    "arcsine": lambda w: r.self_orthogonality(r.arcsine_correlations(w), l1=1.0, l2=1.0),
}


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def orthonormal(d, k, seed=0):
    return np.linalg.qr(draw((d, k), seed))[0]


def cosines(w):
    w = w / np.linalg.norm(w, axis=0)
    return np.array(
        [w[:, i] @ w[:, j] for i in range(w.shape[1]) for j in range(i + 1, w.shape[1])]
    )


def slope(function, x, along, h=1e-6):
    return (function(x + h * along) - function(x - h * along)) / (2 * h)


@pytest.mark.parametrize("shape", SHAPES)
def test_soft_orthogonality_is_one_gram_matrix_or_the_other(x64, shape):
    w = draw(shape)
    d, k = shape
    columns = np.linalg.norm(w.T @ w - np.eye(k)) ** 2
    rows = np.linalg.norm(w @ w.T - np.eye(d)) ** 2
    np.testing.assert_allclose(columns - k, rows - d)  # double soft orthogonality says nothing new
    np.testing.assert_allclose(r.soft_orthogonality(w), min((k, columns), (d, rows))[1])
    gradient = jax.grad(r.soft_orthogonality)(w)
    np.testing.assert_allclose(gradient, 4 * w @ (w.T @ w - np.eye(k)), atol=1e-12)


def test_off_diagonal_against_numpy(x64):
    w = draw((3, 4))
    expected = np.sum((w.T @ w * (1 - np.eye(4))) ** 2)
    np.testing.assert_allclose(r.off_diagonal(w), expected)
    angles = r.off_diagonal(r.unit_columns(w))
    np.testing.assert_allclose(angles, 2 * np.sum(cosines(w) ** 2))
    np.testing.assert_allclose(r.off_diagonal(r.unit_columns(w * np.arange(1, 5))), angles)


@pytest.mark.parametrize("shape", SHAPES)
def test_pairs_against_numpy(x64, shape):
    w = draw(shape)
    np.testing.assert_allclose(r.pairwise_cosines(w), cosines(w), atol=1e-14)
    np.testing.assert_allclose(r.pairwise_angles(w), np.arccos(cosines(w)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(r.unit_columns(w), axis=0), 1)


def test_filters_of_a_convolution():
    kernel = draw((3, 2, 4, 5))
    np.testing.assert_array_equal(
        r.filter_matrix(kernel)[:, 2], kernel[..., 2].reshape(-1).astype(np.float32)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_mutual_coherence_tends_to_the_maximum_from_above(x64, shape):
    w = draw(shape)
    k = shape[1]
    largest = np.abs(cosines(w)).max()
    np.testing.assert_allclose(r.mutual_coherence(w, 1e-4), largest, atol=2e-3)
    for temperature in (0.01, 0.1, 1.0):
        smooth = r.mutual_coherence(w, temperature)
        assert largest <= smooth <= largest + temperature * np.log(k * (k - 1))
    # tau >> 1: log 2 cosh c = log 2 + c^2 / 2
    hot = r.mutual_coherence(w, 100.0) - 100 * np.log(k * (k - 1))
    np.testing.assert_allclose(hot, np.mean(cosines(w) ** 2) / 200, rtol=1e-3)


def test_equiangular_lines_reach_the_welch_bound(x64):
    angles = 2 * np.pi * np.arange(3) / 3
    w = np.stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_allclose(np.abs(r.pairwise_cosines(w)), np.sqrt((3 - 2) / (2 * (3 - 1))))
    bound = np.sqrt((6 - 3) / (3 * (6 - 1)))
    assert all(np.abs(r.pairwise_cosines(draw((3, 6), seed))).max() >= bound for seed in range(20))


@pytest.mark.parametrize("shape", SHAPES)
def test_srip_becomes_the_spectral_norm(x64, shape):
    w = 0.3 * draw(shape)
    gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
    exact = np.linalg.norm(gram - np.eye(len(gram)), 2)
    v = r.srip_vector(jax.random.key(0), jnp.asarray(w))
    np.testing.assert_allclose(np.linalg.norm(v), 1)
    srip = jax.jit(r.srip)
    seen = []
    for _ in range(300):
        sigma, v = srip(w, v)
        seen.append(sigma)
    assert np.all(np.diff(seen) > -1e-12), "an estimate from below that only grows"
    np.testing.assert_allclose(seen[-1], exact, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(v), 1)

    def exactly(w):
        gram = w.T @ w if shape[0] >= shape[1] else w @ w.T
        return jnp.linalg.norm(gram - jnp.eye(len(gram)), 2)

    gradient = jax.grad(lambda w: r.srip(w, v)[0])(w)
    np.testing.assert_allclose(gradient, jax.grad(exactly)(w), atol=1e-4)


def test_srip_starts_low_and_has_no_gradient_through_its_vector(x64):
    w = draw((64, 64)) / 8
    v = r.srip_vector(jax.random.key(1), jnp.asarray(w))
    sigma, following = r.srip(w, v)
    a = w.T @ w - np.eye(64)
    u = a @ np.asarray(v)
    u /= np.linalg.norm(u)
    np.testing.assert_allclose(sigma, np.linalg.norm(a @ u))
    assert sigma < 0.9 * np.linalg.norm(a, 2)
    np.testing.assert_allclose(following, a @ u / np.linalg.norm(a @ u))
    held = jax.grad(lambda w: jnp.linalg.norm(w.T @ (w @ u) - u))(w)
    np.testing.assert_allclose(jax.grad(lambda w: r.srip(w, v)[0])(w), held, atol=1e-12)
    assert not np.any(jax.grad(lambda v: r.srip(w, v)[0])(v))


def test_srip_keeps_its_vector_where_there_is_nothing_to_follow():
    v = jnp.array([0.6, 0.8])
    sigma, following = r.srip(jnp.eye(3, 2), v)
    assert sigma == 0
    np.testing.assert_array_equal(following, v)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 3), (64, 64), (16, 64), (600, 200)])
def test_srip_of_rounding_has_no_gradient(shape, dtype, x64):
    """An orthonormal matrix in either precision: W^T W - I is rounding, without a direction."""
    tall = orthonormal(max(shape), min(shape)).astype(dtype)
    w = jnp.asarray(tall if shape[0] >= shape[1] else tall.T)
    v = r.srip_vector(jax.random.key(0), w)
    run = jax.jit(jax.value_and_grad(r.srip, has_aux=True))
    for _ in range(3):
        (sigma, v), gradient = run(w, v)
        assert sigma == 0
        np.testing.assert_array_equal(gradient, 0)
    (sigma, v), gradient = run(w * dtype(1 + 3e-4), v)
    np.testing.assert_allclose(sigma, 6e-4, rtol=2e-2)
    np.testing.assert_allclose(jnp.linalg.norm(gradient), 2, rtol=2e-2)


def test_srip_sees_the_negative_end_of_the_spectrum(x64):
    w = 0.1 * orthonormal(4, 3)  # W^T W - I = -0.99 I
    np.testing.assert_allclose(r.srip(w, r.srip_vector(jax.random.key(0), jnp.asarray(w)))[0], 0.99)


@pytest.mark.parametrize("name", sorted(set(PENALTIES) - {"srip"}))  # holds its vector, see above
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_finite_differences(x64, name, shape):
    w, along = draw(shape), draw(shape, 1)
    gradient = np.sum(jax.grad(PENALTIES[name])(w) * along)
    np.testing.assert_allclose(gradient, slope(PENALTIES[name], w, along), rtol=1e-6, atol=1e-8)


# For a wide matrix srip's vector lies in the space that is rotated.
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_a_rotation_of_the_inputs_changes_nothing(x64, name, shape):
    w = draw(shape)
    rotation = orthonormal(shape[0], shape[0], 2)
    np.testing.assert_allclose(PENALTIES[name](rotation @ w), PENALTIES[name](w))


@pytest.mark.parametrize("name", sorted(set(PENALTIES) - {"coherence"}))
def test_zero_at_orthonormal_filters_and_nowhere_near(x64, name):
    w = orthonormal(5, 3)
    np.testing.assert_allclose(PENALTIES[name](w), 0, atol=1e-12)
    assert PENALTIES[name](w + 0.1 * draw((5, 3))) > 1e-3
    if name in ("soft", "srip"):
        np.testing.assert_allclose(PENALTIES[name](orthonormal(5, 3).T), 0, atol=1e-12)
        assert PENALTIES[name](1.1 * w) > 1e-2, "lengths count"
    if name == "angles_alone":
        np.testing.assert_allclose(PENALTIES[name](1.1 * w), 0, atol=1e-12)


def test_the_coherence_of_orthonormal_filters_is_the_slack_alone(x64):
    np.testing.assert_allclose(r.mutual_coherence(orthonormal(5, 3), 0.1), 0.1 * np.log(6))


def nasty(shape):
    w = draw(shape).astype(np.float32)
    d, k = shape
    yield "zeros", np.zeros(shape, np.float32)
    yield "a zero column", w * (np.arange(k) > 0)
    yield "duplicates", np.repeat(w[:, :1], k, axis=1)
    yield "opposites", np.repeat(w[:, :1], k, axis=1) * (-1) ** np.arange(k, dtype=np.float32)
    yield "orthonormal", np.eye(d, k, dtype=np.float32)
    yield "one tiny column", np.where(np.arange(k) > 0, w, 1e-30 * w).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_finite_at_nasty_points(shape):
    everything = PENALTIES | {"angles": lambda w: jnp.sum(r.pairwise_angles(w))}
    for function in everything.values():
        both = jax.jit(jax.value_and_grad(function))
        for what, w in nasty(shape):
            value, gradient = both(w)
            assert np.isfinite(value), what
            assert np.all(np.isfinite(gradient)), what


def test_nan_stays_nan():
    w = jnp.ones((3, 2)).at[0, 0].set(jnp.nan)
    everything = PENALTIES | {"angles": lambda w: jnp.sum(r.pairwise_angles(w))}
    assert all(np.isnan(function(w)) for function in everything.values())
    assert np.isnan(r.srip(w, jnp.array([0.6, 0.8]))[1]).all()


def test_huge_and_tiny_columns_have_their_angle():
    w = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    scaled = (w * np.array([1e-30, 1.0, 1e30])).astype(np.float32)
    np.testing.assert_allclose(r.pairwise_cosines(scaled), cosines(w), atol=1e-6)


def test_zero_column_and_parallel_columns():
    w = jnp.array([[0.0, 1.0, -2.0], [0.0, 1.0, -2.0]])
    np.testing.assert_allclose(r.pairwise_cosines(w), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(r.pairwise_angles(w), [np.pi / 2, np.pi / 2, np.pi], atol=5e-4)
    exactly = np.array([[1.0, 2.0, -1.0]])
    np.testing.assert_array_equal(r.pairwise_angles(exactly), np.float32([0, np.pi, np.pi]))
    gradient = jax.grad(lambda w: jnp.sum(r.pairwise_cosines(w) * jnp.arange(1.0, 4.0)))(w)
    np.testing.assert_array_equal(gradient[:, 0], 0)
