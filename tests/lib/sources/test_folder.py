"""A folder of pictures: what is read, how it is split and labelled, and what is refused."""

import os

import numpy as np
import pytest

from experiments.lib.batches import test_batches
from experiments.lib.dataset import Remembered
from experiments.lib.errors import UserError
from experiments.lib.sources.folder import load_folder
from experiments.lib.sources.images import load_images


def _names(split):
    return list(split.names)


def test_pictures_of_any_nesting_become_an_image_set(tmp_path, paint, capsys):
    painted = {name: paint(name) for name in ("a.png", "b/c.PNG", "b/d/e.png", "f.png")}
    images = load_folder(tmp_path)
    assert (images.name, images.shape, images.levels) == ("folder", (8, 12, 3), 256)
    assert not images.labelled
    assert sorted(_names(images.train) + _names(images.test)) == sorted(painted)
    for split in (images.train, images.test):
        batch = split[np.arange(len(split))]
        assert batch.keys() == {"image"}
        assert batch["image"].dtype == np.uint8
        for name, image in zip(_names(split), batch["image"], strict=True):
            np.testing.assert_array_equal(image, painted[name])
    np.testing.assert_array_equal(images.test[0]["image"], images.test[np.arange(1)]["image"][0])
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 pictures to train on and 1 to test on, 12x8, colour, no classes\n"
    )


def test_it_is_decoded_once(tmp_path, paint):
    for number in range(5):
        paint(f"{number}.png")
    images = load_images("folder", str(tmp_path), size=4)
    assert isinstance(images.train, Remembered)
    assert images.shape == (4, 4, 3)
    first = images.train[np.arange(len(images.train))]
    for path in tmp_path.iterdir():
        path.unlink()
    again = images.train[np.arange(len(images.train))]
    np.testing.assert_array_equal(first["image"], again["image"])


def test_grey_only_where_all_are(tmp_path, paint):
    grey = paint("a.png", mode="L")
    paint("b.png", mode="LA")
    assert load_folder(tmp_path).shape == (8, 12, 1)
    paint("c.png", mode="RGB")
    images = load_folder(tmp_path)
    assert images.shape == (8, 12, 3)
    split = images.train if "a.png" in _names(images.train) else images.test
    image = split[_names(split).index("a.png")]["image"]
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_what_is_no_picture_is_ignored_and_counted(tmp_path, paint, capsys):
    for name in ("a.png", "b.png", "._a.png", ".thumbnails/a.png"):
        paint(name)
    for name in ("notes.txt", "more.txt", "film.mp4", "README"):
        (tmp_path / name).write_text("no picture")
    images = load_folder(tmp_path)
    assert sorted(_names(images.train) + _names(images.test)) == ["a.png", "b.png"]
    said = capsys.readouterr().err
    assert "; ignored 5 other files (" in said
    assert all(kind in said for kind in ("2 .txt", "1 .mp4", "1 hidden", "1 no suffix"))


def test_train_and_test_are_the_splits(tmp_path, paint):
    for name in ("train/a.png", "train/b/c.png", "test/a.png"):
        paint(name)
    images = load_folder(tmp_path)
    assert _names(images.train) == ["train/a.png", "train/b/c.png"]
    assert _names(images.test) == ["test/a.png"]
    assert not images.labelled


@pytest.mark.parametrize("prefixes", [("",), ("train/", "test/")])
def test_folders_of_classes_give_labels(tmp_path, paint, prefixes):
    for prefix in prefixes:
        for name in ("dog/a.png", "dog/b.png", "cat/c.png", "emu/d.png"):
            paint(prefix + name)
    images = load_folder(tmp_path)
    assert images.classes == 3
    for split in (images.train, images.test):
        expected = [["cat", "dog", "emu"].index(name.split("/")[-2]) for name in _names(split)]
        labels = split[np.arange(len(split))]["label"]
        assert labels.dtype == np.int32
        assert labels.tolist() == expected


@pytest.mark.parametrize("other", ["e.png", "emu/deep/e.png"])
def test_no_labels_where_a_picture_has_no_class(tmp_path, paint, other):
    for name in ("dog/a.png", "cat/c.png", other):
        paint(name)
    assert not load_folder(tmp_path).labelled


def test_one_folder_is_no_class(tmp_path, paint):
    for name in ("all/a.png", "all/b.png"):
        paint(name)
    assert not load_folder(tmp_path).labelled


def test_links_are_followed_once(tmp_path, paint):
    paint("elsewhere/a.png")
    paint("elsewhere/b.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "photos")
    images = load_folder(tmp_path / "photos")
    assert len(images.train) + len(images.test) == 2


def test_two_sizes_need_a_size(tmp_path, paint):
    paint("a.png", 12, 8)
    paint("b.png", 12, 8)
    paint("c.png", 10, 8)
    with pytest.raises(UserError) as error:
        load_folder(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: a.png has 12x8 pixels and c.png 10x8; expected one size, or --size N, which"
        " crops and resizes all to N x N"
    )
    assert load_folder(tmp_path, size=16).shape == (16, 16, 3)


def test_pictures_that_cannot_be_read_are_named(tmp_path, paint):
    for number in range(9):
        paint(f"{number}.png", 64, 64)
    for number in (1, 2, 4, 7):
        path = tmp_path / f"{number}.png"
        path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "4.png").write_text("no picture")
    (tmp_path / "7.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        load_folder(tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path}: 4 of 9 pictures cannot be read: 1.png (")
    assert ", 2.png (" in said
    assert "4.png (cannot identify image file '4.png')" in said
    assert said.endswith(" and 1 more; expected whole PNG, JPEG or WebP files")
    assert "\n" not in said


def test_a_picture_that_breaks_later_is_named(tmp_path, paint):
    for number in range(4):
        paint(f"{number}.png", 64, 64)
    images = load_folder(tmp_path)
    name = _names(images.train)[1]
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"1 of 3 pictures cannot be read: {name} \("):
        list(test_batches(images.train, 3))
    paint(name, 32, 64)
    with pytest.raises(UserError, match=r"its shape is \(64, 32, 3\) and was \(64, 64, 3\)"):
        images.train[np.arange(3)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has 0 pictures; expected two or more PNG, JPEG or WebP files$"),
        (["a.png"], "has 1 pictures; expected two or more"),
        (["a.png", "a.gif", "b.bmp"], r"files; ignored 2 other files \(1 .gif, 1 .bmp\)"),
        (["train/a.png", "train/b.png"], "has pictures in train/ and none in test/; expected both"),
        (["test/a.png", "b.png"], "has pictures in test/ and none in train/; expected both"),
        (
            ["train/a.png", "test/b.png", "val/c.png", "d.png"],
            "2 pictures lie outside of train/ and test/, such as d.png; expected none",
        ),
    ],
)
def test_folders_of_another_form(tmp_path, paint, names, message):
    for name in names:
        paint(name)
    with pytest.raises(UserError, match=message) as error:
        load_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_read(tmp_path, paint, monkeypatch):
    paint("a.png")
    paint("b.png")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed: Permission denied; expected a folder that can"):
        load_folder(tmp_path)
