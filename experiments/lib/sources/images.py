"""Image sets by name, and the flags that choose one."""

import pathlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from experiments.lib.config import CHANGEABLE, FOLDER, AtLeast, RunConfig
from experiments.lib.dataset import Arrays, held_out
from experiments.lib.errors import UserError
from experiments.lib.sources.archive import load_cifar10, load_npz
from experiments.lib.sources.folder import load_folder
from experiments.lib.sources.image_set import Images, remembered
from experiments.lib.sources.resizing import resized


@dataclass(frozen=True)
class ImageConfig(RunConfig):
    """The knobs of an experiment on images."""

    data: str = "digits"
    """Data set: digits (embedded), folder (the PNG, JPEG and WebP files below --data-dir), npz (the
    arrays in the file --data-dir), cifar10 (pixel-exact, from an .npz file), or the name of any
    image set that tensorflow-datasets has prepared below --data-dir: mnist, fashion_mnist,
    cifar10_jpeg, anime_faces, ..."""
    data_dir: Annotated[str, CHANGEABLE, FOLDER] = ""
    """Folder or file of the data set; of a prepared one, the folder that has NAME/VERSION in it."""
    size: Annotated[int, AtLeast(0)] = 0
    """Crop the images to a square around their centre and resize it to SIZE x SIZE pixels; 0: leave
    them as they are."""
    held_out: bool = False
    """Train without the last fifth of the training images and test on it, to choose flags by."""

    def images(self) -> Images:
        """Opens the data set.

        Raises:
          UserError: the data is not there, not whole, or not images of one size.
        """
        images = load_images(self.data, self.data_dir, self.size)
        return held_out(images) if self.held_out else images


def load_images(name: str, data_dir: str = "", size: int = 0) -> Images:
    """Opens an image set; nothing is downloaded.

    Args:
      name: "digits" (8x8x1, embedded in scikit-learn), "folder", "npz", "cifar10" (pixel-exact,
        from an .npz file), or an image set that tensorflow-datasets has prepared as ArrayRecord.
      data_dir: folder or file of the set; of a prepared one, the folder of tensorflow-datasets.
      size: of the square images, see `resizing.to_square`; 0: as they are.

    Raises:
      UserError: the data is not there, not whole, or not images of one size.
    """
    images = _digits() if name == "digits" else _open(name, data_dir, size)
    if size and images.shape[:2] != (size, size):
        images = resized(images, size)
    return remembered(images)


def _open(name: str, data_dir: str, size: int) -> Images:
    if not data_dir:
        raise UserError(
            f"--data {name}: needs --data-dir, the place where it lies; digits alone needs none"
        )
    place = pathlib.Path(data_dir)
    if name == "folder":
        return load_folder(place, size)  # one decoded picture may be large: it resizes at once
    if name == "npz":
        return load_npz(place)
    if name == "cifar10":
        return load_cifar10(place)
    if not name.isidentifier():
        raise UserError(
            f"--data {name}: expected the name of a data set; your own pictures are --data folder"
            " --data-dir PICTURES"
        )
    from experiments.lib.sources.prepared import load_prepared  # noqa: PLC0415  slow import

    return load_prepared(name, place)


def _digits() -> Images:
    from sklearn.datasets import load_digits  # noqa: PLC0415  only this set needs it

    digits = load_digits()
    images = digits.images[..., None].astype(np.uint8)
    labels = digits.target.astype(np.int32)
    train, test = (
        Arrays({"image": images[part], "label": labels[part]})
        for part in (slice(None, 1437), slice(1437, None))
    )
    return Images("digits", train, test, (8, 8, 1), levels=17, classes=10)
