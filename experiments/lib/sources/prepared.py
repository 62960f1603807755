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

# It is logged at the first image; that a faster decoder exists is nothing the user must know.
logging.getLogger("absl").addFilter(lambda record: "OpenCV is not installed" not in record.msg)


@dataclass(frozen=True)
class Records:
    """A split on disk, decoded when it is read."""

    folder: pathlib.Path
    examples: Any
    columns: tuple[str, ...]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch."""
        try:
            read = self.examples.__getitems__(np.ravel(index).tolist())
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.folder}: a record cannot be read ({reason})") from None
        types = {"image": np.uint8, "label": np.int32}
        batch = {k: np.array([example[k] for example in read], types[k]) for k in self.columns}
        return batch if np.ndim(index) else {name: column[0] for name, column in batch.items()}


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
    # Other labels, such as a set of attributes or a number to predict, name no class.
    classes = getattr(dict(features.items()).get("label"), "num_classes", None) or 0
    columns = ("image", "label") if classes else ("image",)
    for split in ("train", "test"):
        if split not in splits:
            raise UserError(f"{folder}: has splits {', '.join(splits)}; expected train and test")
        _check_shards(splits[split])
    train, test = (Records(folder, builder.as_data_source(s), columns) for s in ("train", "test"))
    return Images(name, train, test, shape, levels=256, classes=classes)


def _newest_version(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    versions = [path.parent for path in data_dir.glob(f"{name}/*/dataset_info.json")]
    whole = [path for path in versions if path.name.replace(".", "").isdecimal()]
    if whole:
        return max(whole, key=lambda path: [int(part) for part in path.name.split(".")])
    found = ", ".join(sorted({path.parts[-3] for path in data_dir.glob("*/*/dataset_info.json")}))
    raise UserError(
        f"--data {name}: no {data_dir / name / '*' / 'dataset_info.json'}, found"
        f" {found or 'no prepared set'}; prepare it once with pip install -e '.[prepare]' and tfds"
        f" build {name} --file_format=array_record --data_dir={data_dir}"
    )


def _image_shape(folder: pathlib.Path, features) -> tuple[int, int, int]:
    image = dict(features.items()).get("image")
    if image is None or image.np_dtype != np.uint8:
        raise UserError(f"{folder}: has {', '.join(features)}; expected uint8 images named image")
    if len(image.shape) != 3 or None in image.shape:
        raise UserError(f"{folder}: images of shape {image.shape}; expected one size [H, W, C]")
    return image.shape


def _check_shards(split) -> None:
    """A copy that was interrupted leaves a shard missing, cut, or with too few records."""
    for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
        if "array_record" not in path.name:
            raise UserError(f"{path}: expected a set prepared with --file_format=array_record")
        if not path.exists():
            raise UserError(f"{path}: missing; expected {expected} records")
        reader = ArrayRecordReader(str(path))
        found = reader.num_records()  # 0 where the file has lost its end
        with contextlib.suppress(RuntimeError):  # for such a file, only this raises
            reader.close()
        if found != expected:
            raise UserError(f"{path}: cut or damaged, {found} records; expected {expected}")
