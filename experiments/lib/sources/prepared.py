"""Image sets that tensorflow-datasets has prepared as ArrayRecord: read without TensorFlow."""

import contextlib
import logging
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images

_MEMORY = 2**30  # bytes: a set that is smaller once decoded stays in memory

# Said at the first image; a faster decoder is no fault of the run.
logging.getLogger("absl").addFilter(lambda record: "OpenCV is not installed" not in record.msg)


@dataclass(frozen=True)
class Records:
    """A split on disk. Indexed by an integer: one example; by an integer array: a batch."""

    folder: pathlib.Path
    examples: Any
    columns: tuple[str, ...]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch, decoded."""
        try:
            read = self.examples.__getitems__(np.ravel(index).tolist())
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.folder}: a record cannot be read ({reason})") from None
        types = {"image": np.uint8, "label": np.int32}
        batch = {k: np.array([example[k] for example in read], types[k]) for k in self.columns}
        return batch if np.ndim(index) else {name: column[0] for name, column in batch.items()}


class Remembered:
    """A split in memory as far as it has been read, so that each image is decoded once."""

    def __init__(self, records: Records, shape: tuple[int, int, int]):
        self._records = records
        self._known = np.zeros(len(records), bool)
        self._columns: dict[str, np.ndarray] = {"image": np.zeros((len(records), *shape), np.uint8)}
        if "label" in records.columns:
            self._columns["label"] = np.zeros(len(records), np.int32)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._records)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch, decoded."""
        wanted = np.ravel(index)
        new = wanted[~self._known[wanted]]
        if new.size:
            # Threads may read the same image twice; both write the same bytes.
            for name, column in self._records[new].items():
                self._columns[name][new] = column
            self._known[new] = True
        return {name: column[index] for name, column in self._columns.items()}


def load_prepared(name: str, data_dir: pathlib.Path) -> Images:
    """Opens a prepared set.

    Args:
      name: as tensorflow-datasets calls it.
      data_dir: the folder with NAME/VERSION/dataset_info.json in it.

    Raises:
      UserError: the set is not there, not whole, or no images of one size.
    """
    folder = _newest_version(name, data_dir)
    try:
        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, builder.info.splits
    except Exception as error:  # its parsers raise many kinds; two JSON files can be at fault
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder}: unreadable dataset_info.json or features.json ({reason})"
        ) from None
    shape = _image_shape(folder, features)
    has_label = "label" in features and features["label"].shape == ()
    columns = ("image", "label") if has_label else ("image",)
    for split in ("train", "test"):
        if split not in splits:
            raise UserError(f"{folder}: has splits {', '.join(splits)}; expected train and test")
        _check_shards(splits[split])
    small = sum(splits[s].num_examples for s in ("train", "test")) * np.prod(shape) <= _MEMORY
    records = [Records(folder, builder.as_data_source(s), columns) for s in ("train", "test")]
    train, test = [Remembered(split, shape) for split in records] if small else records
    return Images(name, train, test, shape, levels=256)


def _newest_version(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    looked_for = data_dir / name / "*" / "dataset_info.json"
    versions = [path.parent for path in data_dir.glob(f"{name}/*/dataset_info.json")]
    whole = [path for path in versions if path.name.replace(".", "").isdecimal()]
    if whole:
        return max(whole, key=lambda path: [int(part) for part in path.name.split(".")])
    raise UserError(
        f"--data {name}: no {looked_for}; prepare the set once with pip install 'jaxgen[prepare]'"
        f" and tfds build {name} --file_format=array_record --data_dir={data_dir}"
    )


def _image_shape(folder: pathlib.Path, features) -> tuple[int, int, int]:
    image = dict(features.items()).get("image")
    if image is None or image.np_dtype != np.uint8:
        raise UserError(f"{folder}: has {', '.join(features)}; expected uint8 images named image")
    if len(image.shape) != 3 or None in image.shape:
        raise UserError(f"{folder}: images of shape {image.shape}; expected one size [H, W, C]")
    return image.shape


def _check_shards(split) -> None:
    """A copy that broke off leaves a shard missing, cut, or with fewer records than announced."""
    for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
        if "array_record" not in path.name:
            raise UserError(f"{path}: expected a set prepared with --file_format=array_record")
        if not path.exists():
            raise UserError(f"{path}: missing; expected {expected} records")
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()  # 0 where the file has lost its end
        with contextlib.suppress(RuntimeError):  # it complains of such a file only here
            reader.close()
        if found != expected:
            raise UserError(f"{path}: cut or damaged, {found} records; expected {expected}")
