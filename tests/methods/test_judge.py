"""The judge: zero for equal sets, larger for worse ones, and the floor beneath."""

import math
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments.lib.dataset import Arrays
from experiments.lib.sources.image_set import Images
from experiments.methods import judge as module
from experiments.methods.judge import (
    Reference,
    _fit,
    floor,
    judge,
    reference,
)

KEY = jax.random.key(0)


def _law(count, shift=0.0, scale=1.0, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 64))
    return (shift + scale * x).astype(np.float32)


def _held(features):
    return Reference(features, _fit("the real images", features))


def test_equal_sets():
    x = _law(400)
    numbers = judge(_held(x), x, KEY)
    assert numbers["cfid"] == pytest.approx(0, abs=1e-6)
    assert (numbers["coverage"], numbers["precision"], numbers["recall"]) == (1, 1, 1)
    # Besides the balls around its neighbours every point is in its own.
    assert numbers["density"] == pytest.approx(6 / 5)
    assert all(type(value) is float for value in numbers.values())
    fewer = judge(_held(x), _law(70), KEY)
    assert (fewer["samples"], fewer["reals"]) == (70, 400)


def test_equal_laws():
    numbers = judge(_held(_law(400)), _law(400, seed=1), KEY)
    assert abs(numbers["kid"]) < 4 * numbers["kid_standard_error"]
    assert numbers["density"] == pytest.approx(1, abs=0.1)
    expected = 1 - math.comb(399, 5) / math.comb(799, 5)
    assert numbers["coverage"] == pytest.approx(expected, abs=0.05)
    # The bias alone, which falls as 1 / N; 0.43 at 5,000 of 64 features.
    assert numbers["cfid"] == pytest.approx(12.5 * 0.43, rel=0.15)


def test_a_shift_and_a_collapse_are_seen():
    real = _held(_law(400))
    same = judge(real, _law(400, seed=1), KEY)
    shifted = judge(real, _law(400, shift=0.5, seed=1), KEY)
    collapsed = judge(real, _law(400, scale=0.2, seed=1), KEY)
    assert shifted["cfid"] == pytest.approx(same["cfid"] + 64 * 0.25, rel=0.2)
    assert shifted["kid"] > same["kid"] + 4 * shifted["kid_standard_error"]
    assert shifted["coverage"] < same["coverage"]
    assert collapsed["cfid"] > 2 * same["cfid"]
    assert collapsed["recall"] < 0.1 < same["recall"]


def test_the_key_deals_the_subsets_alone():
    real, fakes = _held(_law(400)), _law(400, seed=1)
    one, same, other = (judge(real, fakes, jax.random.key(seed)) for seed in (1, 1, 2))
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {"kid", "kid_standard_error"}


def test_few_examples_are_enough_but_not_fewer_than_features():
    real = _held(_law(66))
    assert np.isfinite(list(judge(real, _law(65, seed=1), KEY).values())).all()
    with pytest.raises(ValueError, match="the fakes: 64 images; expected at least 65"):
        judge(real, _law(64), KEY)
    with pytest.raises(ValueError, match=r"cfid: fakes \(99, 63\); expected features \[N, 64\]"):
        judge(real, _law(99)[:, 1:], KEY)
    bad = _law(99)
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="the fakes: features with NaN or infinity"):
        judge(real, bad, KEY)


class _Projection(NamedTuple):
    """An extractor without training: 64 random directions of the pixels."""

    digest: str = "projection"
    calls: list = []  # noqa: RUF012  counted by the test

    def features(self, images):
        self.calls.append(len(images))
        return images.reshape(len(images), -1) @ _law(64) / 8


def _images(train, test):
    def split(count, seed):
        image = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1))
        return Arrays({"image": image.astype(np.uint8)})

    return Images("noise", split(train, 0), split(test, 1), (8, 8, 1), 256)


def test_the_reference_is_computed_once_and_stale_ones_are_not_found(tmp_path):
    data, extractor = _images(300, 200), _Projection(calls=[])
    first, again = (reference(data.test, 256, extractor, tmp_path) for _ in range(2))
    assert extractor.calls == [200]
    assert first.features.shape == (200, 64)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(first.fit.mean, first.features.mean(0), atol=1e-6)
    np.testing.assert_allclose(first.fit.covariance, np.cov(first.features.T), atol=1e-6)
    changed = data.test[np.arange(200)]["image"].copy()
    changed[0, 0, 0, 0] ^= 1
    reference(Arrays({"image": changed}), 256, extractor, tmp_path)
    reference(data.test, 256, extractor._replace(digest="other"), tmp_path)
    reference(Arrays({"image": changed[1:]}), 256, extractor, tmp_path)
    assert extractor.calls == [200, 200, 200, 199]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_reference_is_computed_again(tmp_path):
    data, extractor = _images(300, 200), _Projection(calls=[])
    first = reference(data.test, 256, extractor, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again = reference(data.test, 256, extractor, tmp_path)
    np.testing.assert_array_equal(first.features, again.features)
    assert extractor.calls == [200, 200]


def test_a_reference_of_too_few_images(tmp_path):
    with pytest.raises(ValueError, match="the real images: 64 images; expected at least 65"):
        reference(_images(99, 64).test, 256, _Projection(), tmp_path)


def test_the_floor_is_that_of_real_images_and_kept(tmp_path):
    data, extractor = _images(500, 400), _Projection(calls=[])
    real = reference(data.test, 256, extractor, tmp_path)
    first, again = (floor(data, real, extractor, tmp_path) for _ in range(2))
    assert first == again
    assert extractor.calls == [400, 400]
    assert (first["samples"], first["reals"]) == (400, 400)
    assert abs(first["kid"]) < 4 * first["kid_standard_error"]  # two samples of one law
    fewer = floor(data, real, extractor, tmp_path, 100)
    assert (fewer["samples"], fewer["reals"]) == (100, 400)
    assert fewer["cfid"] > first["cfid"]  # the bias falls with N


def test_floors_of_another_form_are_not_found(tmp_path, monkeypatch):
    data, extractor = _images(100, 90), _Projection(calls=[])
    real = reference(data.test, 256, extractor, tmp_path)
    for form in (1, 2):
        monkeypatch.setattr(module, "_FORM", form)
        floor(data, real, extractor, tmp_path)
    assert extractor.calls == [90, 90, 90]
