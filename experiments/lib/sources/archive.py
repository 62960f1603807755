"""Image sets from one .npz file."""

import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images, drawn_for_test


def load_npz(path: pathlib.Path) -> Images:
    """Opens images of any one size.

    Args:
      path: of an .npz file. It has the arrays x_train and x_test, uint8 [N, H, W, C] with C = 1 or
        3, or [N, H, W], and where there are labels y_train and y_test, integers [N]; or it has x
        (or images) and where there are labels y (or labels), of which `drawn_for_test` draws the
        test split by the place in the file.

    Raises:
      UserError: no such file, or one of another form.
    """
    return _load("npz", path)


def load_cifar10(place: pathlib.Path) -> Images:
    """Opens pixel-exact CIFAR-10, or a part of it, as `load_npz`.

    Args:
      place: the .npz file, or the folder of the one cifar10*.npz.

    Raises:
      UserError: no such file, or one of another form; images of another size than 32x32x3.
    """
    if not place.is_dir():
        return _load("cifar10", place, (32, 32, 3))
    found = sorted(place.glob("cifar10*.npz"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"--data-dir {place}: expected one cifar10*.npz in it, found {names}")
    return _load("cifar10", found[0], (32, 32, 3))


def _load(name: str, path: pathlib.Path, shape: tuple[int, ...] = ()) -> Images:
    arrays = _read(path)
    pairs = _pairs(path, arrays)
    first = pairs[0][0]
    shape = shape or _shape(arrays[first])
    if len(shape) != 3 or shape[2] not in (1, 3) or not all(shape):
        raise UserError(
            f"{path}: {first} is {arrays[first].dtype} {arrays[first].shape}; expected uint8"
            " [N, H, W] or [N, H, W, C] with C = 1 or 3"
        )
    parts = [_columns(path, arrays, *pair, shape) for pair in pairs]
    if len(parts) == 1:
        (columns,) = parts
        count = len(columns["image"])
        if count < 2:
            raise UserError(f"{path}: {first} has {count} images; expected two or more")
        test = drawn_for_test([str(place) for place in range(count)])
        parts = [{key: column[s] for key, column in columns.items()} for s in (~test, test)]
    labels = [part["label"] for part in parts if "label" in part]
    if len(labels) == 1:
        has, lacks = ("train", "test") if "label" in parts[0] else ("test", "train")
        raise UserError(f"{path}: has y_{has} and no y_{lacks}; expected both or neither")
    classes = 1 + max(int(part.max()) for part in labels) if labels else 0
    of_train, of_test = parts
    height, width, channels = shape
    size = (height, width, channels)
    return Images(name, Arrays(of_train), Arrays(of_test), size, levels=256, classes=classes)


_SPLIT = (("x_train", "y_train"), ("x_test", "y_test"))
_WHOLE = (("x", "y"), ("images", "labels"))


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Every array by name; None stands for those whose name means nothing here."""
    if not path.is_file():
        raise UserError(f"--data-dir {path}: no such file; expected an .npz file")
    wanted = {name for pair in (*_SPLIT, *_WHOLE) for name in pair}
    try:
        with path.open("rb") as opened:
            if opened.read(2) != b"PK":  # NumPy takes other files for pickles or single arrays
                raise UserError(f"{path}: not a whole .npz file (no zip archive)")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                return {k: _array(path, file, k) if k in wanted else None for k in file.files}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise UserError(f"{path}: not a whole .npz file ({error})") from None


def _array(path: pathlib.Path, file, name: str) -> np.ndarray:
    try:
        return file[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise UserError(f"{path}: {name} is an array of Python objects; expected numbers") from None


def _pairs(path: pathlib.Path, arrays: dict) -> list[tuple[str, str]]:
    """Names of images and labels, of two splits or of the whole."""
    if all(image in arrays for image, _ in _SPLIT):
        return list(_SPLIT)
    whole = [pair for pair in _WHOLE if pair[0] in arrays]
    if len(whole) != 1:
        raise UserError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; expected x_train and x_test, or x, or"
            " images"
        )
    return whole


def _columns(
    path: pathlib.Path, arrays: dict, image: str, label: str, shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    images, labels = arrays[image], arrays.get(label)
    if images.dtype != np.uint8 or _shape(images) != shape or not len(images):
        raise UserError(
            f"{path}: {image} is {images.dtype} {images.shape}; expected uint8 [N, H, W, C] with"
            f" N >= 1 and H, W, C = {shape}"
        )
    columns = {"image": images.reshape(-1, *shape)}
    if labels is None:
        return columns
    if labels.dtype.kind not in "iu" or labels.size != len(images) or labels.min() < 0:
        raise UserError(
            f"{path}: {label} is {labels.dtype} {labels.shape}; expected {len(images)} integers"
            " of at least 0"
        )
    return columns | {"label": labels.reshape(-1).astype(np.int32)}


def _shape(images: np.ndarray) -> tuple[int, ...]:
    """(H, W, C) of [N, H, W, C], and of [N, H, W], where C = 1."""
    return images.shape[1:] + (1,) * (images.ndim == 3)
