"""Random changes of images, against shifts, flips and rotations done by numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from experiments.methods import augmentation

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 9, 7, 3), np.float32)


def test_no_change_is_the_identity(images):
    same = augmentation.random_affine(KEY, images, rotation=0, scale=1, shear=0, shift=0)
    np.testing.assert_allclose(same, images, atol=1e-6)
    jittered = augmentation.color_jitter(KEY, images, strength=0, grey=0)
    np.testing.assert_allclose(jittered, images, atol=1e-6)


def test_affine_is_scipys(images):
    """Each drawn map is recovered from ramps, which an affine map turns into ramps."""
    places = np.stack(np.meshgrid(np.arange(9.0), np.arange(7.0), indexing="ij"), -1) / 100
    ramps = np.repeat(np.float32(places)[None], 4, axis=0)
    moved = np.asarray(augmentation.random_affine(KEY, ramps, 0.2, 1.1, 0.1, 0.02)) * 100
    found = np.asarray(augmentation.random_affine(KEY, images, 0.2, 1.1, 0.1, 0.02))
    for ramp, one, image in zip(moved, found, images, strict=True):
        centre, base = np.array([4, 3]), ramp[4, 3]
        matrix = np.stack([ramp[5, 3] - base, ramp[4, 4] - base], -1)
        assert not np.allclose(matrix, np.eye(2), atol=1e-3)
        inner = slice(3, 6), slice(2, 5)  # scipy blends what is outside in another way
        for c in range(3):
            want = scipy.ndimage.affine_transform(
                image[..., c], matrix, base - matrix @ centre, order=1
            )
            np.testing.assert_allclose(one[..., c][inner], want[inner], atol=1e-3)


def test_affine_draws_within_its_bounds():
    places = np.stack(np.meshgrid(np.arange(9.0) - 4, np.arange(9.0) - 4, indexing="ij"), -1)
    ramps = jnp.asarray(np.repeat(places[None], 2000, axis=0), jnp.float32)
    moved = np.asarray(augmentation.random_affine(KEY, ramps, 0, 1.2, 0.3, 0.1))
    base = moved[:, 4, 4]
    first, second = moved[:, 5, 4] - base, moved[:, 4, 5] - base
    for values, low, high in (
        (first[:, 0], 1 / 1.2, 1.2),
        (first[:, 1], -0.3, 0.3),
        (second[:, 1], 1 / 1.2, 1.2),
        (base[:, 0], -0.9, 0.9),
        (base[:, 1], -0.9, 0.9),
    ):
        assert low - 1e-4 <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + 1e-4
    np.testing.assert_allclose(second[:, 0], 0, atol=1e-5)


def test_crop_stays_inside_and_covers_the_share_of_area():
    places = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0), indexing="ij"), -1)
    ramps = jnp.asarray(np.repeat(places[None], 1000, axis=0), jnp.float32)
    seen = np.asarray(augmentation.random_crop(KEY, ramps, 0.25))
    step = seen[:, 8, 8] - seen[:, 7, 7]  # sides as shares of the image
    area = step.prod(-1)
    assert 0.2 < area.min() < 0.27
    assert 0.9 < area.max() <= 1 + 1e-5
    assert (step <= 1 + 1e-5).all()
    middle = (seen[:, 8, 8] + seen[:, 7, 7]) / 2
    assert (middle - 8 * step >= -0.5 - 1e-4).all()
    assert (middle + 8 * step <= 15.5 + 1e-4).all()


def test_flip_mirrors_half_of_the_images():
    images = np.random.default_rng(1).random((400, 2, 3, 1), np.float32)
    flipped = np.asarray(augmentation.random_flip(KEY, images))
    mirrored = np.array(
        [np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images, strict=True)]
    )
    same = np.array([np.array_equal(f, i) for f, i in zip(flipped, images, strict=True)])
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_jitter_keeps_the_range_and_makes_some_grey(images):
    many = np.repeat(images, 100, axis=0)
    found = np.asarray(augmentation.color_jitter(KEY, many, strength=0.5, grey=0.3))
    assert found.min() >= 0
    assert found.max() <= 1
    grey = np.ptp(found, axis=-1).max((1, 2)) < 1e-6
    assert 0.2 < grey.mean() < 0.4
    one = augmentation.color_jitter(KEY, many[..., :1], strength=0.5, grey=1.0)
    assert np.asarray(one).std() > 0.1  # one channel has no colour to lose
