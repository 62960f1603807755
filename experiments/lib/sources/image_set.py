"""What an image set is."""

from typing import Any, NamedTuple

import numpy as np


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
    """

    name: str
    train: Any
    test: Any
    shape: tuple[int, int, int]
    levels: int

    @property
    def labelled(self) -> bool:
        """Whether both splits have labels."""
        return all("label" in split[np.arange(1)] for split in (self.train, self.test))
