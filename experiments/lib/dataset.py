"""What a data set is: two splits that can be indexed by arrays."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """A training split and a test split; a type with more fields, such as `Images`, works as well.

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


class Remembered:
    """A split whose examples are read once and then kept in memory.

    An example is read when it is first asked for, and the first one when the split is opened: it
    tells the columns. Threads may share the split.
    """

    def __init__(self, split):
        self._split = split
        self._known = np.zeros(len(split), bool)
        self._columns = {
            name: np.zeros((len(split), *column.shape[1:]), column.dtype)
            for name, column in split[np.arange(1)].items()
        }

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._split)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One example, or a batch."""
        wanted = np.ravel(index)
        new = wanted[~self._known[wanted]]
        if new.size:
            # Two threads may read the same example; both write the same bytes.
            for name, column in self._split[new].items():
                self._columns[name][new] = column
            self._known[new] = True
        return {name: column[index] for name, column in self._columns.items()}


@dataclass(frozen=True)
class Part:
    """The examples first, first + 1, ..., last - 1 of a split."""

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
    """The data set of an experiment that draws its own data from the PRNG keys it gets.

    Both splits have `count` examples. A batch is {"number": int32 [B]}: which examples they are.
    """
    numbers = Arrays({"number": np.arange(count, dtype=np.int32)})
    return Dataset(numbers, numbers)


def held_out(data):
    """Trains on the first four fifths of the training split and tests on the rest.

    Hyperparameters are chosen on such a set, so that the real test split stays unseen.
    """
    cut = len(data.train) * 4 // 5
    parts = Part(data.train, 0, cut), Part(data.train, cut, len(data.train))
    return data._replace(train=parts[0], test=parts[1])
