"""Where penalties look: which examples a point lies between; and clipped weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxgen import regularizers as r

B = 6


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def batches():
    return draw((B, 3, 2)), draw((B, 3, 2), 1)


def parents(points, pool):
    """Per point, the one pair (i, j) of the pool that it lies between, and where."""
    found = []
    flat = pool.reshape(len(pool), -1)
    for point in np.asarray(points).reshape(len(points), -1):
        near = [
            (np.linalg.norm(a + t * (b - a) - point), i, j, t)
            for i, a in enumerate(flat)
            for j, b in enumerate(flat)
            if i < j
            for t in [np.dot(point - a, b - a) / np.dot(b - a, b - a)]
        ]
        error, i, j, t = min(near)
        assert error < 1e-4
        assert -1e-5 < t < 1 + 1e-5
        found.append((i, j))
    return found


def test_interpolation_has_one_alpha_per_example():
    real, fake = batches()
    points = r.interpolate(jax.random.key(0), real, fake)
    alpha = (np.asarray(points) - fake) / (real - fake)
    np.testing.assert_allclose(alpha, np.broadcast_to(alpha[:, :1, :1], alpha.shape), atol=1e-5)
    assert len(np.unique(np.round(alpha[:, 0, 0], 4))) == 6
    assert np.all((alpha > -1e-5) & (alpha < 1 + 1e-5))
    many = r.interpolate(jax.random.key(1), jnp.ones(20_000), jnp.zeros(20_000))
    np.testing.assert_allclose([many.mean(), many.var()], [1 / 2, 1 / 12], atol=5e-3)
    images = r.interpolate(jax.random.key(0), jnp.zeros((2, 3), jnp.uint8), jnp.ones((2, 3)))
    assert images.dtype == jnp.float32


def test_points_within_lie_between_neighbours_of_one_kind():
    real, fake = batches()
    points = r.interpolate_within(jax.random.key(0), real, fake)
    found = parents(points, np.concatenate([real, fake]))
    kind = [(0, B - 1), *((i, i + 1) for i in range(B - 1))]
    assert found == kind + [(i + B, j + B) for i, j in kind]


def test_pooled_points_lie_between_any_two():
    """Between 1 and 1, 1 and -1, -1 and -1: a quarter, a half and a quarter of the pairs."""
    n = 4000
    points = np.asarray(r.interpolate_pooled(jax.random.key(0), jnp.ones(n), -jnp.ones(n)))
    assert points.shape == (2 * n,)
    shares = [np.mean(points == 1), np.mean(np.abs(points) < 1), np.mean(points == -1)]
    np.testing.assert_allclose(shares, [1 / 4, 1 / 2, 1 / 4], atol=0.02)
    real, fake = batches()
    pool = np.concatenate([real, fake])
    points = r.interpolate_pooled(jax.random.key(3), real, fake)
    alone = [np.abs(pool - point).max(axis=(1, 2)).min() < 1e-6 for point in np.asarray(points)]
    pairs = parents(np.asarray(points)[~np.array(alone)], pool)
    assert len(set(pairs)) > 6
    # Every example is in two pairs, or paired with itself.
    counts = np.bincount(np.ravel(pairs), minlength=2 * B)
    assert counts.sum() + 2 * sum(alone) == 4 * B
    assert counts.max() <= 2


def test_wgan_div_at_all_six(x64):
    """Slopes: ||a|| of a linear critic everywhere, ||x|| of a quadratic one; 2 B points, or B."""
    real, fake = (x.astype(np.float64) for x in batches())
    a = draw(6, 2).astype(np.float64)
    key = jax.random.key(0)
    for size, points in (
        (B, r.interpolate(key, real, fake)),
        (2 * B, r.interpolate_within(key, real, fake)),
        (2 * B, r.interpolate_pooled(key, real, fake)),
        (2 * B, jnp.concatenate([real, fake])),
        (B, fake),
        (B, real),
    ):
        flat = np.asarray(points).reshape(size, 6)
        linear = r.gradient_power_penalty(lambda x: jnp.vecdot(x.reshape(-1, 6), a[None]), points)
        np.testing.assert_allclose(linear, np.full(size, np.linalg.norm(a) ** 6))
        square = r.gradient_power_penalty(lambda x: 0.5 * jnp.sum(x**2, axis=(1, 2)), points)
        np.testing.assert_allclose(square, np.linalg.norm(flat, axis=1) ** 6)
    # Where real and fake are apart, their mixtures are between them, and those within are not.
    apart = np.linalg.norm(real - fake, axis=(1, 2)).min()
    between, within = r.interpolate(key, real, fake), r.interpolate_within(key, real, real + 100)
    along = np.linalg.norm(between - fake, axis=(1, 2)) + np.linalg.norm(
        between - real, axis=(1, 2)
    )
    np.testing.assert_allclose(along, np.linalg.norm(real - fake, axis=(1, 2)), rtol=1e-6)
    assert apart > 0 and (within[:B] < 50).all() and (within[B:] > 50).all()


def test_dragan_points_are_uniform_around_real_ones():
    real = 3 + 2 * draw((500, 40))
    noise = (np.asarray(r.dragan_points(jax.random.key(0), real, 0.8)) - real) / real.std()
    assert np.abs(noise).max() < 0.4 + 1e-4
    np.testing.assert_allclose([noise.mean(), noise.var()], [0, 0.8**2 / 12], atol=1e-3)
    np.testing.assert_array_equal(r.dragan_points(jax.random.key(0), real, 0), real)
    assert r.dragan_points(jax.random.key(0), jnp.ones((2, 3), jnp.uint8)).dtype == jnp.float32


@pytest.mark.parametrize("name", ["dragan_points", "interpolate_within", "interpolate_pooled"])
def test_gradients_are_finite_differences(name, x64):
    fake, weights = draw((4, 2), 1).astype(np.float64), np.cos(np.arange(16.0))
    key = jax.random.key(0)

    def total(real):
        if name == "dragan_points":
            points = r.dragan_points(key, real)
        else:
            points = getattr(r, name)(key, real, fake)
        return jnp.sum(points.ravel() * weights[: points.size])

    real = draw((4, 2)).astype(np.float64)
    numeric = optimize.approx_fprime(real.ravel(), lambda v: float(total(v.reshape(4, 2))), 1e-6)
    np.testing.assert_allclose(jax.grad(total)(real).ravel(), numeric, rtol=1e-5, atol=1e-7)


def test_constant_reals_have_finite_gradients():
    gradient = jax.grad(lambda x: jnp.sum(r.dragan_points(jax.random.key(0), x)))(jnp.ones((3, 2)))
    np.testing.assert_array_equal(gradient, 1)


def test_nan_is_in_all_of_dragans_points():
    """The width is of the whole batch: it is not to become 0."""
    points = r.dragan_points(jax.random.key(0), jnp.array([[1.0, jnp.nan], [2.0, 3.0]]))
    assert np.isnan(points).all()


def test_clipped_weights():
    params = {"a": jnp.array([-3.0, 0.004, 0.2]), "b": jnp.array([0.5], jnp.bfloat16)}
    clipped = r.clip_weights(params, 0.01)
    np.testing.assert_allclose(clipped["a"], [-0.01, 0.004, 0.01])
    assert clipped["b"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(clipped["b"]), 0.01, rtol=2e-3)
    annealed = jax.jit(r.clip_weights)(params, np.float32(0.01))
    assert annealed["b"].dtype == jnp.bfloat16
