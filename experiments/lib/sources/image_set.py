"""An image set: two splits of images that all have one size."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.lib.dataset import Arrays, Remembered

_MEMORY = 2**30  # bytes of decoded images that are kept in memory at most
_TEST_SHARE = 0.1


class Images(NamedTuple):
    """Images of one size, in two splits.

    A batch is {"image": uint8 [B, H, W, C], "label": int32 [B]}; a set without labels has no
    "label".

    Attributes:
      name: of the set.
      train: split, see `experiments.lib.dataset.Dataset`.
      test: likewise.
      shape: (H, W, C).
      levels: pixels are integers 0 ... levels - 1.
      classes: labels are integers 0 ... classes - 1; 0: the set has no labels.
    """

    name: str
    train: Any
    test: Any
    shape: tuple[int, int, int]
    levels: int
    classes: int = 0

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.classes > 0


def remembered(images: Images) -> Images:
    """The same set; if it takes at most 1 GiB, each image is read and decoded only once."""
    count = len(images.train) + len(images.test)
    if isinstance(images.train, Arrays) or count * math.prod(images.shape) > _MEMORY:
        return images
    return images._replace(train=Remembered(images.train), test=Remembered(images.test))


def drawn_for_test(names: Sequence[str]) -> np.ndarray:
    """Draws a test split from data that has none: about one example in ten, and at least one.

    An example is drawn if the hash of its name lies in the lowest tenth of all hashes, so it stays
    in its split when other examples are added. If no hash does, the example with the lowest one is
    drawn; if all do, the example with the highest one is left for training.

    Args:
      names: of the examples, all different, two or more.

    Returns:
      bool [N]; at least one True and one False.
    """
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    places = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    count = np.clip(np.sum(places < _TEST_SHARE), 1, len(names) - 1)
    test = np.zeros(len(names), bool)
    test[np.argsort(places, kind="stable")[:count]] = True
    return test
