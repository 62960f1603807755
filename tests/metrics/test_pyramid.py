import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxgen import metrics as m

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def convolve(x, kernel):
    return ndimage.convolve(x, kernel[None, :, :, None], mode="mirror")


def images(seed, shape=(6, 28, 28, 1)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (0, 1, 1, 0))


def test_pyramid_against_scipy(x64):
    x = np.random.default_rng(0).normal(size=(2, 12, 16, 3))
    expected, rest = [], x
    for _ in range(2):
        coarse = convolve(rest, KERNEL)[:, ::2, ::2]
        spread = np.zeros_like(rest)
        spread[:, ::2, ::2] = coarse
        expected.append(rest - convolve(spread, 4 * KERNEL))
        rest = coarse
    for level, value in zip(m.laplacian_pyramid(x, 3), [*expected, rest], strict=True):
        np.testing.assert_allclose(level, value, rtol=1e-10, atol=1e-12)


def test_pyramid_of_a_constant_is_its_last_level(x64):
    *bands, rest = m.laplacian_pyramid(np.full((1, 16, 16, 1), 3.0), 3)
    np.testing.assert_allclose(rest, 3, rtol=1e-12)
    # The zeros that expand puts in end with one: the last two pixels of a side are not interior.
    np.testing.assert_allclose(bands[0][:, :-2, :-2], 0, atol=1e-12)


def test_one_patch_is_the_sorted_distance(x64):
    """7 x 7 images have one patch each, so nothing is left to chance but the directions."""
    real, fake = np.random.default_rng(0).gamma(2.0, size=(2, 20, 7, 7, 2))
    found = m.pyramid_sliced_wasserstein(
        jax.random.key(0), real, fake, levels=1, patches=1, projections=500, repeats=4
    )

    def normalised(x):
        return ((x - x.mean((0, 1, 2))) / x.std((0, 1, 2))).reshape(20, -1)

    directions = np.random.default_rng(1).normal(size=(98, 4000))
    directions /= np.linalg.norm(directions, axis=0)
    gaps = np.sort(normalised(real) @ directions, 0) - np.sort(normalised(fake) @ directions, 0)
    by_direction = np.abs(gaps).mean(axis=0)
    error = by_direction.std() * np.sqrt(1 / 2000 + 1 / 4000)
    assert found.shape == (1,)
    assert abs(found[0] - by_direction.mean()) < 4 * error


def test_equal_sets_of_one_patch_are_at_distance_zero(x64):
    x = np.random.default_rng(0).normal(size=(9, 7, 7, 1))
    run = lambda y: m.pyramid_sliced_wasserstein(jax.random.key(0), x, y, levels=1, patches=1)  # noqa: E731
    np.testing.assert_allclose(run(x[::-1]), 0, atol=1e-12)
    # The documented blindness to brightness and contrast.
    np.testing.assert_allclose(run(3 * x + 5), 0, atol=1e-12)
    assert run(x**3) > 0.01


def test_levels_tell_scales_apart():
    """Fine noise is seen at the finest level, and least at the coarsest."""
    real, other = images(0, (64, 32, 32, 1)), images(1, (64, 32, 32, 1))
    checker = np.indices((32, 32)).sum(axis=0)[None, :, :, None] % 2
    noisy = other + checker
    run = jax.jit(
        lambda x, y: m.pyramid_sliced_wasserstein(jax.random.key(2), x, y, patches=16, repeats=1)
    )
    same, far = run(real, other), run(real, noisy)
    assert far[0] > 4 * same[0]
    assert far[2] < 1.5 * same[2]


def test_patches_lie_everywhere():
    """Only one corner differs: patches must be able to reach each of the four."""
    real = np.random.default_rng(0).normal(size=(4, 8, 8, 1))
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        fake = real.copy()
        fake[:, row, column] += 50
        far = m.pyramid_sliced_wasserstein(jax.random.key(0), real, fake, levels=1, repeats=1)
        assert far[0] > 0.05


@pytest.mark.parametrize("first, second", [(0.1, 0.6), (0.3, 0.2)])
def test_rounding_errors_of_flat_images_are_not_blown_up(first, second):
    flat = np.ones((8, 28, 28, 1), np.float32)
    found = m.pyramid_sliced_wasserstein(
        jax.random.key(0), first * flat, second * flat, levels=2, patches=16
    )
    # Within a band of differences the borders are not flat: two draws of places remain.
    assert found[0] < 0.2
    assert found[1] < 1e-5
    faint = first + 1e-3 * np.random.default_rng(0).normal(size=flat.shape)
    seen = m.pyramid_sliced_wasserstein(jax.random.key(0), flat, faint, levels=1)
    assert seen[0] > 0.5


def test_nan_shows_where_no_patch_meets_it():
    x = np.random.default_rng(0).normal(size=(3, 64, 64, 1)).astype(np.float32)
    bad = x.copy()
    bad[0, 0, 0] = np.nan

    @jax.jit
    def run(x, y):
        # Of one level: more of them spread a NaN over its whole image.
        return m.pyramid_sliced_wasserstein(jax.random.key(0), x, y, levels=1, patches=1)

    assert np.isfinite(run(x, x)).all()
    assert np.isnan(run(x, bad)).all() and np.isnan(run(bad, x)).all()


def test_gradient_of_flat_images_is_finite():
    flat = jnp.zeros((2, 14, 14, 1))

    def total(x):
        return jnp.sum(m.pyramid_sliced_wasserstein(jax.random.key(0), flat, x, levels=2))

    assert jax.jit(total)(flat) == 0
    assert np.isfinite(jax.jit(jax.grad(total))(flat)).all()
