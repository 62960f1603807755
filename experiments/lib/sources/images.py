"""Image sets by name, and the flags that choose one."""

import pathlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from experiments.lib.config import CHANGEABLE, FOLDER, RunConfig
from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.archive import load_npz
from experiments.lib.sources.image_set import Images


@dataclass(frozen=True)
class ImageConfig(RunConfig):
    """The knobs of an experiment on images."""

    data: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar10_jpeg", "anime_faces"] = (
        "digits"
    )
    """Data set: digits is embedded; the others are read from --data-dir."""
    data_dir: Annotated[str, CHANGEABLE, FOLDER] = ""
    """Folder of tensorflow-datasets; of cifar10, the .npz file or its folder."""

    def images(self) -> Images:
        """Opens the data set.

        Raises:
          UserError: the data is not there, not whole, or not images of one size.
        """
        return load_images(self.data, self.data_dir)


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
    if not data_dir:
        raise UserError(f"--data {name}: needs --data-dir, the place where it lies")
    if name == "cifar10":
        return load_npz(name, pathlib.Path(data_dir), (32, 32, 3))
    from experiments.lib.sources.prepared import load_prepared  # noqa: PLC0415  slow import

    return load_prepared(name, pathlib.Path(data_dir))


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
