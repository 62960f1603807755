"""What a data set is: two splits that can be indexed by arrays."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Two splits; a type with more fields, such as `Images`, may stand in for it.

    A split has a length. Indexed by an integer array it gives a batch, {name: array [B, ...]}.
    """

    train: Any
    test: Any


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


@dataclass(frozen=True)
class Part:
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


def generated(count: int) -> Dataset:
    """The data set of an experiment that draws its own data from the keys that it gets.

    A batch is {"number": int32 [B]}, the numbers of `count` examples.
    """
    numbers = Arrays({"number": np.arange(count, dtype=np.int32)})
    return Dataset(numbers, numbers)


def held_out(data):
    """The first four fifths of the training split, and the rest to test on: for choosing knobs."""
    cut = len(data.train) * 4 // 5
    parts = Part(data.train, 0, cut), Part(data.train, cut, len(data.train))
    return data._replace(train=parts[0], test=parts[1])
