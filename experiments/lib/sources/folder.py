"""A folder of pictures as an image set."""

import os
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.sources.image_set import Images, drawn_for_test
from experiments.lib.sources.picture_files import SUFFIXES, Header, read_header, read_picture

_NAMED = 3  # files that an error names
_THREADS = 16  # that read headers: they wait for the disk, or for a network


@dataclass(frozen=True)
class Pictures:
    """A split on disk, decoded when it is read.

    Attributes:
      root: the folder.
      names: of the files, relative to it.
      labels: int32 [N], or None.
      shape: (H, W, C) of every picture.
      size: side of the square that each is cropped and resized to; 0: none.
    """

    root: pathlib.Path
    names: Sequence[str]
    labels: np.ndarray | None
    shape: tuple[int, int, int]
    size: int

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One picture, or a batch."""
        names = [self.names[i] for i in np.ravel(index)]
        images = np.stack(_of_each(self.root, names, self._read))
        batch = {"image": images.reshape(*np.shape(index), *self.shape)}
        return batch if self.labels is None else batch | {"label": self.labels[index]}

    def _read(self, path: pathlib.Path) -> np.ndarray:
        image = read_picture(path, self.shape[2], self.size)
        if image.shape != self.shape:
            raise ValueError(f"its shape is {image.shape} and was {self.shape} at the start")
        return image


def load_folder(root: pathlib.Path, size: int = 0) -> Images:
    """Opens the PNG, JPEG and WebP files of a folder and of the folders in it.

    The pictures have one channel if all of them are grey, else three; see `read_picture` for
    transparency, rotation and 16 bits. Hidden files and files of other kinds are ignored, and their
    number is said once.

    If the folder has train/ and test/, they are the splits; otherwise `drawn_for_test` draws by the
    relative name. If every picture of a split lies in a folder of its class, CLASS/FILE, and there
    are two classes or more, the labels are the places of the folders' names in sorted order.

    Args:
      root: the folder.
      size: the pictures are cropped to a square and resized to size x size; 0: they must all have
        one size, which they keep.

    Raises:
      UserError: no such folder, too few pictures, one that cannot be read, two sizes without
        `size`, or a train/ without a test/.
    """
    names, ignored = _find(root)
    train, test = _splits(root, names)
    headers = _of_each(root, names, read_header, threads=_THREADS)
    shape = _shape(root, names, headers, size)
    classes, labels = _labels(train, test)
    images = Images(
        "folder",
        Pictures(root, train, labels[0], shape, size),
        Pictures(root, test, labels[1], shape, size),
        shape,
        levels=256,
        classes=len(classes),
    )
    notice(
        f"{root}: {len(train)} pictures to train on and {len(test)} to test on,"
        f" {shape[1]}x{shape[0]}, {'grey' if shape[2] == 1 else 'colour'},"
        f" {len(classes) or 'no'} classes{ignored}"
    )
    return images


def _find(root: pathlib.Path) -> tuple[list[str], str]:
    """Relative names of the pictures in sorted order, and what else there is, in words."""
    if not root.is_dir():
        raise UserError(f"--data-dir {root}: expected a folder of pictures")

    def refuse(error: OSError):
        raise UserError(f"{error.filename}: {error.strerror}; expected a folder that can be read")

    names, others, seen = [], Counter[str](), {os.path.realpath(root)}
    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        inside = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and inside[name] not in seen
        ]
        seen.update(inside[name] for name in folders)  # links may form a circle
        for name in files:
            suffix = pathlib.PurePath(name).suffix.lower()
            if suffix in SUFFIXES and not name.startswith("."):
                names.append(pathlib.Path(place, name).relative_to(root).as_posix())
            else:
                others["hidden" if name.startswith(".") else suffix or "no suffix"] += 1
    kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(4))
    kinds += ", ..." * (len(others) > 4)
    ignored = f"; ignored {others.total()} other files ({kinds})" if others else ""
    if len(names) < 2:
        raise UserError(
            f"--data-dir {root}: has {len(names)} pictures; expected two or more PNG, JPEG or WebP"
            f" files{ignored}"
        )
    return sorted(names), ignored


def _splits(root: pathlib.Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of the training and of the test pictures."""
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    parts = [[n for n, top in zip(names, tops, strict=True) if top == s] for s in ("train", "test")]
    if not any(parts):
        test = drawn_for_test(names)
        both = np.array(names, object)
        return both[~test].tolist(), both[test].tolist()
    if not all(parts):
        has, lacks = ("train", "test") if parts[0] else ("test", "train")
        raise UserError(f"{root}: has pictures in {has}/ and none in {lacks}/; expected both")
    outside = [n for n, top in zip(names, tops, strict=True) if top not in ("train", "test")]
    if outside:
        raise UserError(
            f"{root}: {len(outside)} pictures lie outside of train/ and test/, such as"
            f" {outside[0]}; expected none"
        )
    return parts[0], parts[1]


def _labels(train: list[str], test: list[str]) -> tuple[list[str], list[np.ndarray | None]]:
    """Names of the classes, and the labels of either split, or None where there are none."""
    parts = [[name.split("/") for name in split] for split in (train, test)]
    depth = 3 if train[0].startswith("train/") else 2
    if any(len(p) != depth for split in parts for p in split):
        return [], [None, None]
    classes = sorted({p[-2] for split in parts for p in split})
    if len(classes) < 2:
        return [], [None, None]
    number = {name: i for i, name in enumerate(classes)}
    return classes, [np.array([number[p[-2]] for p in split], np.int32) for split in parts]


def _shape(
    root: pathlib.Path, names: list[str], headers: list[Header], size: int
) -> tuple[int, int, int]:
    channels = 1 if all(header.grey for header in headers) else 3
    if size:
        return size, size, channels
    first = headers[0]
    for name, header in zip(names, headers, strict=True):
        if header[:2] != first[:2]:
            raise UserError(
                f"{root}: {names[0]} has {first.width}x{first.height} pixels and {name}"
                f" {header.width}x{header.height}; expected one size, or --size N, which crops and"
                " resizes all to N x N"
            )
    return first.height, first.width, channels


def _of_each(root: pathlib.Path, names: Sequence[str], read: Callable, threads: int = 0) -> list:
    """What `read` finds in each file; the files in which it fails are named in one error."""

    def attempt(name: str) -> tuple[Any, str]:
        try:
            return read(root / name), ""
        except Exception as error:  # the decoders raise many kinds
            reason = " ".join(str(error).replace(str(root / name), name).split())[:100]
            return None, f"{name} ({reason or type(error).__name__})"

    if threads:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(attempt, names))
    else:
        found = [attempt(name) for name in names]
    bad = [fault for _, fault in found if fault]
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise UserError(
            f"{root}: {len(bad)} of {len(names)} pictures cannot be read: {', '.join(bad[:_NAMED])}"
            f"{more}; expected whole PNG, JPEG or WebP files"
        )
    return [value for value, _ in found]
