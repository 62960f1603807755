"""Sets that tensorflow-datasets has prepared: read, and refused where they are not whole."""

import json
import shutil

import numpy as np
import pytest

from experiments.lib.batches import batches, test_batches
from experiments.lib.errors import UserError
from experiments.lib.sources.images import load_images


@pytest.mark.parametrize(
    ("name", "lengths", "shape", "columns"),
    [
        ("mnist", (60000, 10000), (28, 28, 1), {"image", "label"}),
        ("fashion_mnist", (60000, 10000), (28, 28, 1), {"image", "label"}),
        ("anime_faces", (10000, 1000), (64, 64, 3), {"image"}),
    ],
)
def test_prepared_sets(real_data, name, lengths, shape, columns, capfd):
    images = load_images(name, str(real_data / "tfds"))
    assert (len(images.train), len(images.test)) == lengths
    assert images.shape == shape
    assert images.classes == (10 if "label" in columns else 0)
    batch = next(batches(images.train, 16, seed=0))
    assert batch.keys() == columns
    assert batch["image"].shape == (16, *shape)
    assert batch["image"].dtype == np.uint8
    assert images.test[0]["image"].shape == shape
    assert capfd.readouterr().err == ""


@pytest.fixture
def mnist(real_data, tmp_path):
    """A copy of the smallest files of the prepared MNIST that can be damaged."""
    source, copy = real_data / "tfds" / "mnist" / "3.0.1", tmp_path / "mnist" / "3.0.1"
    copy.mkdir(parents=True)
    for path in source.iterdir():
        if "train" in path.name:
            (copy / path.name).symlink_to(path)
        else:
            shutil.copy(path, copy)
    return copy


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


def test_the_newest_version_is_read(mnist):
    for version in ("3.0.0", "2.10.0"):
        shutil.copytree(mnist, mnist.with_name(version), symlinks=True)
        json.loads((mnist.with_name(version) / "dataset_info.json").read_text())
        (mnist.with_name(version) / "dataset_info.json").write_text("{}")
    assert len(load_images("mnist", str(mnist.parents[1])).test) == 10000
