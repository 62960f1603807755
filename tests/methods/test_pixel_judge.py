"""The judge of pixels: larger for worse images, and the floor beneath."""

import jax
import numpy as np
import pytest

from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images
from experiments.methods import pixel_judge as module
from experiments.methods.pixel_judge import (
    _halvings,
    check_pixels,
    floor_of_pixels,
    judge_pixels,
    spaced_pixels,
)

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _images(train, test):
    def split(count, seed):
        image = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1))
        return Arrays({"image": image.astype(np.uint8)})

    return Images("noise", split(train, 0), split(test, 1), (8, 8, 1), 256)


def test_the_floor_of_pixels_is_that_of_real_images_and_kept(tmp_path, monkeypatch):
    data = _images(40, 30)
    first = floor_of_pixels(data, tmp_path)
    train, test = (spaced_pixels(split, 256) for split in (data.train, data.test))
    assert (train.min(), train.max()) == (-1, 1)
    assert first == judge_pixels(test, train, jax.random.key(0))
    assert first["samples"] == 30
    monkeypatch.setattr(module, "judge_pixels", None)  # a second look only reads
    assert floor_of_pixels(data, tmp_path) == first
    changed = Arrays({"image": data.train[np.arange(40)]["image"][::-1]})
    with pytest.raises(TypeError):
        floor_of_pixels(data._replace(train=changed), tmp_path)


def test_pixels_are_taken_evenly(monkeypatch):
    image = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    monkeypatch.setattr(module, "_PIXELS", 4)
    split = Arrays({"image": image})
    np.testing.assert_allclose(spaced_pixels(split, 10).ravel() * 4.5 + 4.5, [0, 3, 6, 9])


def _smooth(count, size, seed, spread=1.0):
    """Images of waves; a small spread makes them alike."""
    rng = np.random.default_rng(seed)
    at = np.arange(size) / size
    phase = rng.uniform(0, 2 * np.pi * spread, (count, 2, 1))
    waves = np.sin(2 * np.pi * at + phase)
    return (waves[:, 0, :, None] * waves[:, 1, None, :])[..., None].astype(np.float32)


def test_pixels_of_equal_and_of_other_laws():
    real, same = _smooth(40, 8, 0), _smooth(41, 8, 1)
    close = judge_pixels(real, same, KEY)
    noise = judge_pixels(real, RNG.uniform(-1, 1, real.shape).astype(np.float32), KEY)
    alike = judge_pixels(real, _smooth(40, 8, 1, spread=0.02), KEY)
    assert noise["swd"] > 1.2 * close["swd"] > 0
    assert alike["swd"] > 2 * close["swd"]
    assert alike["ms_ssim"] > 0.9 > close["ms_ssim"] + 0.1
    assert close["ms_ssim"] == pytest.approx(close["ms_ssim_real"], abs=0.15)
    assert alike["ms_ssim_real"] == close["ms_ssim_real"]


def test_images_are_halved_as_far_as_it_makes_sense():
    sizes = {(8, 8): (1, 2), (28, 28): (2, 3), (32, 32): (2, 4), (64, 64): (3, 5), (27, 28): (1, 1)}
    for size, scales in sizes.items():
        assert (_halvings(size, 14), _halvings(size, 4)) == scales, size


def test_pixels_that_cannot_be_judged():
    real = _smooth(10, 8, 0)
    with pytest.raises(ValueError, match="10 real, 1 fake; expected 2 or more"):
        judge_pixels(real, real[:1], KEY)
    for fakes, message in (
        (_smooth(10, 16, 0), r"\(10, 16, 16, 1\)"),
        (255 * real, r"images hold .*; expected numbers in \[-1, 1\]"),
        (real * np.float32(np.nan), "images hold nan; expected finite"),
        (real.astype(np.uint8), "images of uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            judge_pixels(real, fakes, KEY)


@pytest.mark.parametrize(("train", "test"), [(1, 9), (9, 1)])
def test_too_few_images_to_judge_by_pixels(train, test):
    check_pixels(_images(2, 2))
    message = f"{train} training and {test} test images of 8x8 pixels; .* two or more of each"
    with pytest.raises(UserError, match=message):
        check_pixels(_images(train, test))


def test_floors_of_another_form_are_not_found(tmp_path, monkeypatch):
    for form in (1, 2):
        monkeypatch.setattr(module, "_FORM", form)
        floor_of_pixels(_images(10, 9), tmp_path)
    assert len(list(tmp_path.glob("pixels-*"))) == 2
