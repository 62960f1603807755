"""Sets by name."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.lib.sources.images import ImageConfig, load_images


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


def test_digits_start_without_tensorflow_datasets():
    code = "import sys; from experiments.lib.sources.images import load_images;"
    code += "load_images('digits');"
    code += "assert not {'tensorflow', 'tensorflow_datasets'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sets_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="--data mnist: needs --data-dir"):
        load_images("mnist")
    message = (
        r"no .*/mnist/\*/dataset_info.json, found no prepared set; prepare it once with pip install"
        r" -e '\.\[prepare\]' and tfds build mnist"
    )
    with pytest.raises(UserError, match=message):
        load_images("mnist", str(tmp_path))
    (tmp_path / "mnist" / "3.0.1.incompleteABC").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1.incompleteABC" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"no .*dataset_info.json"):
        load_images("mnist", str(tmp_path))
    (tmp_path / "kmnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "kmnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="found kmnist, mnist;"):
        load_images("mnits", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("digit", "", "--data digit: needs --data-dir, .*; digits alone needs none"),
        ("", "somewhere", "--data : expected the name of a data set"),
        ("/my/photos", "somewhere", "your own pictures are --data folder --data-dir PICTURES"),
        ("folder", "nowhere", "--data-dir nowhere: expected a folder of pictures"),
        ("npz", "nowhere.npz", "--data-dir nowhere.npz: no such file; expected an .npz file"),
    ],
)
def test_names_and_places_that_mean_nothing(name, place, message):
    with pytest.raises(UserError, match=message):
        load_images(name, place)


def test_the_size_is_a_flag_of_every_set():
    digits = ImageConfig(size=12).images()
    assert digits.shape == (12, 12, 1)
    batch = digits.test[np.arange(360)]
    assert batch["image"].shape == (360, 12, 12, 1)
    assert batch["image"].max() == 16  # of 17 levels; the filter overshoots
    plain = load_images("digits").test[np.arange(360)]
    np.testing.assert_array_equal(batch["label"], plain["label"])
    assert digits.test[5]["image"].shape == (12, 12, 1)
    with pytest.raises(UserError, match="--size -1: expected an integer of at least 0"):
        ImageConfig(size=-1)
