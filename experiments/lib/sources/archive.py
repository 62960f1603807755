"""Image sets from one .npz file."""

import pathlib
import zipfile
import zlib

import numpy as np

from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images


def load_npz(name: str, place: pathlib.Path, shape: tuple[int, int, int]) -> Images:
    """Arrays x_train, x_test (uint8 [N, H, W, C]) and, where there are labels, y_train, y_test."""
    path = _find_npz(name, place)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole .npz file ({error})") from None
    train, test = (_npz_split(path, arrays, split, shape) for split in ("train", "test"))
    return Images(name, train, test, shape, levels=256)


def _npz_split(path: pathlib.Path, arrays: dict, split: str, shape: tuple[int, int, int]) -> Arrays:
    images, labels = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
    if images is None:
        raise UserError(f"{path}: holds {', '.join(arrays)}; expected x_train and x_test")
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"{path}: x_{split} is {images.dtype} {images.shape}; expected uint8 [N, H, W, C]"
            f" with N >= 1 and H, W, C = {shape}"
        )
    if labels is None:
        return Arrays({"image": images})
    if labels.dtype.kind not in "iu" or labels.size != len(images):
        raise UserError(
            f"{path}: y_{split} is {labels.dtype} {labels.shape}; expected {len(images)} integers"
        )
    return Arrays({"image": images, "label": labels.reshape(-1).astype(np.int32)})


def _find_npz(name: str, place: pathlib.Path) -> pathlib.Path:
    if place.is_file():
        return place
    found = sorted(place.glob(f"{name}*.npz"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"--data-dir {place}: expected one {name}*.npz in it, found {names}")
    return found[0]
