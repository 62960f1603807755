"""Images from an .npz file, and clear words for files of another form."""

import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.lib.sources.images import load_images


def _npz(path, **changed):
    arrays = {
        "x_train": np.zeros((5, 32, 32, 3), np.uint8),
        "y_train": np.zeros((5, 1), np.int64),
        "x_test": np.zeros((3, 32, 32, 3), np.uint8),
        "y_test": np.zeros(3, np.uint8),
    }
    np.savez(path, **{k: v for k, v in {**arrays, **changed}.items() if v is not None})


def test_npz(tmp_path):
    _npz(tmp_path / "cifar10_small.npz")
    for place in (tmp_path, tmp_path / "cifar10_small.npz"):
        images = load_images("cifar10", str(place))
        assert (len(images.train), len(images.test), images.levels) == (5, 3, 256)
        assert images.train[np.arange(2)]["label"].dtype == np.int32
    _npz(tmp_path / "cifar10_small.npz", y_train=None, y_test=None)
    assert load_images("cifar10", str(tmp_path)).train[0].keys() == {"image"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_test": None}, "holds x_train, y_train, y_test; expected x_train and x_test, or x"),
        (
            {"x_train": np.zeros((5, 32, 32, 3))},
            r"x_train is float64 \(5, 32, 32, 3\); expected ui",
        ),
        ({"x_train": np.zeros((5, 28, 28), np.uint8)}, r"x_train is uint8 \(5, 28, 28\); expected"),
        ({"x_test": np.zeros((0, 32, 32, 3), np.uint8)}, "x_test .* N >= 1"),
        ({"y_test": np.zeros(4, np.int64)}, r"y_test is int64 \(4,\); expected 3 integers"),
        ({"y_test": np.array([None] * 3)}, "y_test is an array of Python objects; exp"),
    ],
)
def test_npz_of_another_form(tmp_path, changed, message):
    _npz(tmp_path / "cifar10.npz", **changed)
    with pytest.raises(UserError, match=message):
        load_images("cifar10", str(tmp_path))


def test_npz_not_there_or_cut(tmp_path):
    with pytest.raises(UserError, match=r"expected one cifar10\*.npz in it, found none"):
        load_images("cifar10", str(tmp_path))
    _npz(tmp_path / "cifar10.npz")
    content = (tmp_path / "cifar10.npz").read_bytes()
    for cut in (0, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cifar10.npz").write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"cifar10.npz: not a whole .npz file"):
            load_images("cifar10", str(tmp_path))


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "c.npy", np.zeros((5, 32, 32, 3), np.uint8))
    for name in ("cifar10", "npz"):
        with pytest.raises(UserError, match=r"c.npy: not a whole .npz file \(no zip archive\)"):
            load_images(name, str(tmp_path / "c.npy"))


@pytest.mark.parametrize(("shape", "expected"), [((6, 4), (6, 4, 1)), ((5, 7, 3), (5, 7, 3))])
def test_images_of_any_size(tmp_path, shape, expected):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (n, *shape)).astype(np.uint8) for n in (4, 2))
    labels = {"y_train": np.array([3, 0, 1, 1]), "y_test": np.array([0, 5])}
    np.savez(tmp_path / "own.npz", x_train=x, x_test=y, **labels, notes=np.array([None]))
    images = load_images("npz", str(tmp_path / "own.npz"))
    assert (images.name, images.shape, images.levels, images.classes) == ("npz", expected, 256, 6)
    np.testing.assert_array_equal(images.train[np.arange(4)]["image"], x.reshape(4, *expected))
    np.testing.assert_array_equal(images.test[np.arange(2)]["label"], [0, 5])
    small = load_images("npz", str(tmp_path / "own.npz"), size=2)
    assert small.shape == (2, 2, expected[2])
    assert small.test[np.arange(2)]["image"].shape == (2, 2, 2, expected[2])


@pytest.mark.parametrize(("image", "label"), [("x", "y"), ("images", "labels")])
def test_a_test_split_is_drawn_where_there_is_none(tmp_path, image, label):
    x = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    np.savez(tmp_path / "own.npz", **{image: x, label: np.arange(100) % 7})
    images = load_images("npz", str(tmp_path / "own.npz"))
    train, test = (split[np.arange(len(split))] for split in (images.train, images.test))
    seen = np.concatenate([train["image"], test["image"]])[:, 0, 0, 0]
    assert sorted(seen) == list(range(100))
    np.testing.assert_array_equal(np.concatenate([train["label"], test["label"]]), seen % 7)
    assert 4 <= len(images.test) <= 18
    assert images.classes == 7


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "holds a; expected x_train and x_test, or x, or images"),
        ({}, "holds nothing; expected"),
        ({"x": np.zeros((1, 4, 4), np.uint8)}, "x has 1 images; expected two or more"),
        ({"x": np.zeros((9, 4, 4))}, r"x is float64 \(9, 4, 4\); expected uint8"),
        ({"x": np.zeros((9, 3, 4, 4), np.uint8)}, r"\(9, 3, 4, 4\); .* C = 1 or 3"),
        ({"x": np.zeros(9, np.uint8)}, r"x is uint8 \(9,\); expected uint8 \[N, H, W\] or"),
        ({"x": np.zeros((9, 0, 4), np.uint8)}, r"x is uint8 \(9, 0, 4\); expected"),
        ({"x": np.array([None] * 9)}, "x is an array of Python objects; expected numbers"),
        (
            {"x": np.zeros((9, 4, 4), np.uint8), "y": np.arange(9) - 1},
            r"y is int64 \(9,\); expected 9 integers of at least 0",
        ),
        (
            {"x": np.zeros((9, 4, 4), np.uint8), "images": np.zeros((9, 4, 4), np.uint8)},
            "holds x, images; expected",
        ),
        (
            {"x_train": np.zeros((9, 4, 4), np.uint8), "x_test": np.zeros((9, 4, 5), np.uint8)},
            r"x_test is uint8 \(9, 4, 5\); expected .* H, W, C = \(4, 4, 1\)",
        ),
        (
            {f"{k}": np.zeros((9, 4, 4), np.uint8) for k in ("x_train", "x_test")}
            | {"y_train": np.zeros(9, int)},
            "has y_train and no y_test; expected both or neither",
        ),
    ],
)
def test_any_npz_of_another_form(tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        load_images("npz", str(tmp_path / "own.npz"))
    assert "\n" not in str(error.value)


def test_lossless_cifar10(real_data):
    images = load_images("cifar10", str(real_data / "arrays"))
    assert (len(images.train), len(images.test), images.shape) == (8068, 1017, (32, 32, 3))
