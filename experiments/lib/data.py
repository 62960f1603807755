"""Image sets as random-access sources, and batches that are a function of (seed, step) alone."""

import functools
import math
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np

from experiments.lib.errors import UserError


class Images(NamedTuple):
    """Images of one size, in two splits.

    A split has a length. Indexed by an integer it gives {"image": uint8 [H, W, C], "label": int32},
    indexed by an integer array the same with a leading axis; a set without labels has no "label".
    """

    name: str
    train: Any
    test: Any
    shape: tuple[int, int, int]
    levels: int  # the pixels are 0 .. levels - 1


@dataclass(frozen=True)
class Arrays:
    """A split in memory: columns of equal length."""

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        """Number of examples."""
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch."""
        return {name: column[index] for name, column in self.columns.items()}


def load_images(name: str, data_dir: str = "") -> Images:
    """Opens an image set; nothing is downloaded.

    Args:
      name: "digits" (8x8x1, embedded in scikit-learn), "cifar10" (pixel-exact, from an .npz file),
        or any image set that tensorflow-datasets has prepared as ArrayRecord.
      data_dir: the .npz file or its folder, or the folder of tensorflow-datasets.

    Raises:
      UserError: the data is not there, not whole, or no images of one size.
    """
    if name == "digits":
        return _digits()
    if "://" in data_dir:
        raise UserError(f"--data-dir {data_dir}: expected a folder; mount the bucket as one")
    if not data_dir:
        raise UserError(f"--data {name}: needs --data-dir, the place where it lies")
    if name == "cifar10":
        return _from_npz(name, pathlib.Path(data_dir), (32, 32, 3))
    from experiments.lib.prepared import load_prepared  # noqa: PLC0415  slow; digits start fast

    return load_prepared(name, pathlib.Path(data_dir))


@dataclass(frozen=True)
class _Part:
    """Examples first ... last - 1 of a split."""

    split: Any
    first: int
    last: int

    def __len__(self) -> int:
        """Number of examples."""
        return self.last - self.first

    def __getitem__(self, index):
        """One example, or a batch."""
        return self.split[self.first + np.asarray(index)]


def held_out(data: Images) -> Images:
    """The first four fifths of the training images, and the rest to test on: to choose knobs by."""
    cut = len(data.train) * 4 // 5
    parts = _Part(data.train, 0, cut), _Part(data.train, cut, len(data.train))
    return data._replace(train=parts[0], test=parts[1])


def batches(
    source, batch_size: int, seed: int, start: int = 0, processes: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches; each pass over the source is shuffled anew.

    Batch i is a function of (seed, i): it depends neither on `start`, nor on how many processes
    share it, so a run can be continued anywhere and on another number of machines.

    Args:
      source: a split of `Images`.
      batch_size: examples in the batch of all processes together.
      seed: of the order.
      start: number of the first batch.
      processes: (index of this process, number of processes).

    Returns:
      An iterator over this process's slices, arrays [batch_size / processes, ...].
    """
    shuffled = _Shuffled(source, batch_size, seed, processes)
    return _in_threads(grain.MapDataset.source(shuffled)[start:])


def first_batch(
    source, batch_size: int, seed: int, processes: tuple[int, int] = (0, 1)
) -> dict[str, np.ndarray]:
    """Batch 0 of `batches`, this process's slice of it, with nothing read ahead."""
    return _Shuffled(source, batch_size, seed, processes)[0]


def test_batches(
    source, batch_size: int, processes: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """One pass in order; the last batch is filled up with copies of the last example.

    Args:
      source: a split of `Images`.
      batch_size: examples in the batch of all processes together.
      processes: (index of this process, number of processes).

    Returns:
      An iterator over this process's slices; besides the example's arrays each has
      "valid": bool [batch_size / processes], False where the example is only there to fill up.
    """
    return _in_threads(grain.MapDataset.source(_InOrder(source, batch_size, processes)))


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


def _in_threads(dataset: grain.MapDataset) -> Iterator[dict[str, np.ndarray]]:
    # Few threads: reading is a gather or a C decoder that leaves the interpreter lock alone.
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def _slice(batch: int, batch_size: int, processes: tuple[int, int]) -> np.ndarray:
    index, count = processes
    local = batch_size // count
    return batch * batch_size + index * local + np.arange(local)


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(length)


@dataclass(frozen=True)
class _Shuffled:
    """The endless sequence of shuffled batches.

    A whole batch is one element, read by one gather: grain's own shuffle and batch take about
    30 us per example, and small images would wait for them.
    """

    source: Any
    batch_size: int
    seed: int
    processes: tuple[int, int]

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, batch) -> dict[str, np.ndarray]:
        length = len(self.source)
        epochs, places = np.divmod(_slice(batch, self.batch_size, self.processes), length)
        index = np.empty_like(places)
        for epoch in np.unique(epochs):
            order = _permutation(length, self.seed, int(epoch))
            index[epochs == epoch] = order[places[epochs == epoch]]
        return self.source[index]


@dataclass(frozen=True)
class _InOrder:
    source: Any
    batch_size: int
    processes: tuple[int, int]

    def __len__(self) -> int:
        return math.ceil(len(self.source) / self.batch_size)

    def __getitem__(self, batch) -> dict[str, np.ndarray]:
        places = _slice(batch, self.batch_size, self.processes)
        last = len(self.source) - 1
        return {**self.source[np.minimum(places, last)], "valid": places <= last}


def _digits() -> Images:
    from sklearn.datasets import load_digits  # noqa: PLC0415  only this set needs it

    digits = load_digits()
    images = digits.images[..., None].astype(np.uint8)
    labels = digits.target.astype(np.int32)
    train, test = (
        Arrays({"image": images[part], "label": labels[part]})
        for part in (slice(None, 1437), slice(1437, None))
    )
    return Images("digits", train, test, (8, 8, 1), levels=17)


def _from_npz(name: str, place: pathlib.Path, shape: tuple[int, int, int]) -> Images:
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
