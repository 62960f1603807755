"""What gan adds to the game: its judge's numbers, and the pictures' arrangement."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from experiments import gan
from experiments.lib.dataset import Arrays
from experiments.lib.sources.image_set import Images
from experiments.methods import features, pixel_judge


def _images(labelled=True):
    """Random images whose first pixel is their class."""

    def split(count, seed):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 10, (count, 8, 8, 1)).astype(np.uint8)
        columns: dict[str, Any] = {"image": image}
        return Arrays(columns | ({"label": image[:, 0, 0, 0].astype(np.int32)} if labelled else {}))

    return Images("noise", split(300, 0), split(200, 1), (8, 8, 1), 10, 10 if labelled else 0)


def _fakes(wrong=0):
    """A sampler of random images whose first pixel is the class asked for, but for the first."""

    def sample(variables, key, count):
        image = np.random.default_rng(2).integers(0, 10, (count, 8, 8, 1)).astype(np.uint8)
        image[:, 0, 0, 0] = (np.arange(count) + (np.arange(count) < wrong)) % 10
        return features.signed_pixels(image, 10)

    return sample


class _Players:
    ema = generator = None


@pytest.fixture
def read_first_pixel(monkeypatch):
    """A classifier without training: it reads the class, and its features are random directions."""
    directions = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float32) / 8
    extractor = features.Extractor(
        features=lambda images: images.reshape(len(images), -1) @ directions,
        classify=lambda images: features.integer_pixels(images, 10)[:, 0, 0, 0].astype(np.int32),
        accuracy=0.75,
        digest="00ff10" + "0" * 10,
    )
    monkeypatch.setattr(features, "extractor", lambda data, folder: extractor)


def test_numbers_stand_beside_those_of_real_images(read_first_pixel, tmp_path):
    config = dataclasses.replace(gan.SMOKE, workdir=str(tmp_path / "run"))
    numbers = gan.judgement(config, _images(), _fakes())(_Players(), jax.random.key(0))
    assert (numbers["samples"], numbers["reals"]) == (200, 200)
    assert numbers["classifier_accuracy"] == 0.75
    assert numbers["classifier_digest"] == 0xFF10
    assert numbers["cfid"] == numbers["cfid_of_last"]  # the same variables
    names = ("cfid", "kid", "density", "coverage", "precision", "recall")
    for name in names:  # three samples of one law
        assert numbers[f"{name}_of_real"] == pytest.approx(numbers[name], rel=0.3, abs=0.1), name
        assert numbers[f"{name}_of_real"] != numbers[name]
    assert "class_accuracy" not in numbers


@pytest.mark.parametrize("wrong", [0, 50])
def test_how_often_the_class_asked_for_is_seen(read_first_pixel, tmp_path, wrong):
    config = dataclasses.replace(gan.SMOKE, conditional=True, workdir=str(tmp_path / "run"))
    numbers = gan.judgement(config, _images(), _fakes(wrong))(_Players(), jax.random.key(0))
    assert numbers["class_accuracy"] == 1 - wrong / 200


def test_images_without_labels_are_judged_by_pixels(tmp_path):
    config = dataclasses.replace(gan.SMOKE, workdir=str(tmp_path / "run"))
    data = _images(labelled=False)
    numbers = gan.judgement(config, data, _fakes())(_Players(), jax.random.key(0))
    floor = pixel_judge.floor_of_pixels(data, tmp_path / "extractors")
    assert numbers["samples"] == 200
    assert numbers["swd_of_real"] == floor["swd"] > 0
    assert numbers["swd"] == pytest.approx(numbers["swd_of_real"], rel=0.3)
