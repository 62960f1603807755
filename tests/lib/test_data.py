"""Data: the same batches however they are read, and clear words for files that are not whole."""

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from experiments.lib.batches import batches, test_batches
from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.images import load_images

_DATA = pathlib.Path(
    os.environ.get("JAXGEN_DATA", pathlib.Path(__file__).parents[3] / "shared" / "data")
)
needs_data = pytest.mark.skipif(
    not _DATA.is_dir(), reason=f"no prepared data sets in {_DATA}; JAXGEN_DATA names their folder"
)


@pytest.fixture
def hundred():
    return Arrays({"image": np.arange(100, dtype=np.uint8)[:, None, None, None]})


def _first(source, count, *args, **kwargs):
    read = itertools.islice(batches(source, *args, **kwargs), count)
    return [batch["image"].ravel() for batch in read]


def test_digits():
    digits = load_images("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.shape == (8, 8, 1)
    assert digits.levels == 17
    one, many = digits.train[3], digits.train[np.array([3, 4])]
    assert one["image"].shape == (8, 8, 1)
    assert many["image"].dtype == np.uint8
    assert many["label"].dtype == np.int32
    assert many["image"].max() <= 16
    np.testing.assert_array_equal(many["image"][0], one["image"])


def test_every_epoch_has_each_example_once_in_a_new_order(hundred):
    seen = np.concatenate(_first(hundred, 75, 8, seed=3)).reshape(6, 100)
    for epoch in seen:
        assert sorted(epoch) == list(range(100))
    for one, other in itertools.combinations([np.arange(100), *seen], 2):
        assert (one == other).mean() < 0.1
    assert (seen != np.concatenate(_first(hundred, 75, 8, seed=4)).reshape(6, 100)).any()


def test_a_batch_is_a_function_of_seed_and_number(hundred):
    whole = _first(hundred, 40, 8, seed=3)
    np.testing.assert_array_equal(_first(hundred, 10, 8, seed=3, start=30), whole[30:])
    parts = [_first(hundred, 40, 8, seed=3, processes=(i, 4)) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_a_batch_may_be_larger_than_the_set(hundred):
    (batch,) = _first(hundred, 1, 250, seed=0)
    assert np.bincount(batch).tolist().count(2) + np.bincount(batch).tolist().count(3) == 100


def test_the_test_pass_has_each_example_once_in_order(hundred):
    read = list(test_batches(hundred, 32))
    assert [len(batch["image"]) for batch in read] == [32] * 4
    valid = np.concatenate([batch["valid"] for batch in read])
    images = np.concatenate([batch["image"].ravel() for batch in read])
    assert images[valid].tolist() == list(range(100))
    halves = [list(test_batches(hundred, 32, processes=(i, 2))) for i in range(2)]
    for batch, *parts in zip(read, *halves, strict=True):
        for name in batch:
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])


def test_digits_start_without_tensorflow_datasets():
    code = "import sys; from experiments.lib.batches import load_images; load_images'digits';"
    code += "assert not {'tensorflow', 'tensorflow_datasets'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


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
        ({"x_test": None}, "holds x_train, y_train, y_test; expected x_train and x_test"),
        (
            {"x_train": np.zeros((5, 32, 32, 3))},
            r"x_train is float64 \(5, 32, 32, 3\); expected ui",
        ),
        ({"x_train": np.zeros((5, 28, 28), np.uint8)}, r"x_train is uint8 \(5, 28, 28\); expected"),
        ({"x_test": np.zeros((0, 32, 32, 3), np.uint8)}, "x_test .* N >= 1"),
        ({"y_test": np.zeros(4, np.int64)}, r"y_test is int64 \(4,\); expected 3 integers"),
        ({"y_test": np.array([None] * 3)}, r"not a whole .npz file \(Object arrays"),
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


def test_sets_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="--data mnist: needs --data-dir"):
        load_images("mnist")
    with pytest.raises(UserError, match=r"no .*/mnist/\*/dataset_info.json; .*jaxgen\[prepare\]"):
        load_images("mnist", str(tmp_path))
    (tmp_path / "mnist" / "3.0.1.incompleteABC").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1.incompleteABC" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"no .*dataset_info.json"):
        load_images("mnist", str(tmp_path))


@needs_data
def test_lossless_cifar10():
    images = load_images("cifar10", str(_DATA / "arrays"))
    assert (len(images.train), len(images.test), images.shape) == (8068, 1017, (32, 32, 3))


@needs_data
@pytest.mark.parametrize(
    ("name", "lengths", "shape", "columns"),
    [
        ("mnist", (60000, 10000), (28, 28, 1), {"image", "label"}),
        ("fashion_mnist", (60000, 10000), (28, 28, 1), {"image", "label"}),
        ("anime_faces", (10000, 1000), (64, 64, 3), {"image"}),
    ],
)
def test_prepared_sets(name, lengths, shape, columns, capfd):
    images = load_images(name, str(_DATA / "tfds"))
    assert (len(images.train), len(images.test)) == lengths
    assert images.shape == shape
    batch = next(batches(images.train, 16, seed=0))
    assert batch.keys() == columns
    assert batch["image"].shape == (16, *shape)
    assert batch["image"].dtype == np.uint8
    assert images.test[0]["image"].shape == shape
    assert capfd.readouterr().err == ""


@pytest.fixture
def mnist(tmp_path):
    """A copy of the smallest files of the prepared MNIST that can be damaged."""
    source, copy = _DATA / "tfds" / "mnist" / "3.0.1", tmp_path / "mnist" / "3.0.1"
    copy.mkdir(parents=True)
    for path in source.iterdir():
        if "train" in path.name:
            (copy / path.name).symlink_to(path)
        else:
            shutil.copy(path, copy)
    return copy


@needs_data
def test_prepared_set_with_a_shard_missing_or_cut(mnist):
    shard = mnist / "mnist-test.array_record-00000-of-00001"
    content = shard.read_bytes()
    for cut in (0, 1000, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:cut])
        with pytest.raises(UserError, match="00001: cut or damaged, 0 records; expected 10000"):
            load_images("mnist", str(mnist.parents[1]))
    shard.unlink()
    with pytest.raises(UserError, match="00000-of-00001: missing; expected 10000 records"):
        load_images("mnist", str(mnist.parents[1]))


@needs_data
def test_prepared_set_with_a_damaged_record(mnist):
    shard = mnist / "mnist-test.array_record-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    images = load_images("mnist", str(mnist.parents[1]))
    with pytest.raises(UserError, match="a record cannot be read"):
        list(test_batches(images.test, 1000))


def _in_json(old, new):
    def change(folder, name):
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


@needs_data
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("dataset_info.json", '"10000"', '"9999"', "10000 records; expected 9999"),
        ("dataset_info.json", '"splits"', '"split', "unreadable dataset_info.json or features"),
        ("dataset_info.json", '"name": "test"', '"name": "other"', "has splits .*; expected train"),
        ("dataset_info.json", '"array_record"', '"tfrecord"', "--file_format=array_record"),
        ("features.json", '"image": {\n', '"picture": {\n', "expected uint8 images named image"),
        ("features.json", '"28",', '"-1",', r"images of shape \(None, 28, 1\); expected one size"),
    ],
)
def test_prepared_set_of_another_form(mnist, name, old, new, message):
    _in_json(old, new)(mnist, name)
    with pytest.raises(UserError, match=message) as error:
        load_images("mnist", str(mnist.parents[1]))
    assert "\n" not in str(error.value)


@needs_data
def test_the_newest_version_is_read(mnist):
    for version in ("3.0.0", "2.10.0"):
        shutil.copytree(mnist, mnist.with_name(version), symlinks=True)
        json.loads((mnist.with_name(version) / "dataset_info.json").read_text())
        (mnist.with_name(version) / "dataset_info.json").write_text("{}")
    assert len(load_images("mnist", str(mnist.parents[1])).test) == 10000


def test_a_small_set_is_decoded_once_and_stays_the_same():
    from experiments.lib.sources.prepared import Remembered  # noqa: PLC0415  needs tensorflow-datasets

    class Disk:
        columns = ("image", "label")
        reads: ClassVar[list[int]] = []

        def __len__(self):
            return 5

        def __getitem__(self, index):
            self.reads.extend(index.tolist())
            image = np.ones((len(index), 2, 2, 1), np.uint8) * index[:, None, None, None]
            return {"image": image.astype(np.uint8), "label": index.astype(np.int32)}

    disk = Disk()
    split = Remembered(disk, (2, 2, 1))
    for wanted in ([3, 1], [1, 4, 3], [0, 1]):
        batch = split[np.array(wanted)]
        np.testing.assert_array_equal(batch["label"], wanted)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], wanted)
    assert disk.reads == [3, 1, 4, 0]
    assert split[4]["image"].shape == (2, 2, 1)
    assert split[4]["label"] == 4
