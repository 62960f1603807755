"""Batches that depend on (seed, step) alone, read ahead by a few threads."""

import functools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np


def batches(
    source, batch_size: int, seed: int, start: int = 0, processes: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches; each pass over the source is shuffled anew.

    Batch i depends on (seed, i) alone, not on `start` and not on how many processes share it. So a
    run can be continued after any step, and on another number of machines.

    Args:
      source: a split of a `Dataset`.
      batch_size: examples in the batch of all processes together.
      seed: of the order of the examples.
      start: number of the batch to begin with.
      processes: (index of this process, number of processes).

    Returns:
      An iterator over this process's slices, arrays [batch_size / processes, ...].
    """
    shuffled = _Shuffled(source, batch_size, seed, processes)
    return _in_threads(grain.MapDataset.source(shuffled)[start:])


def first_batch(
    source, batch_size: int, seed: int, processes: tuple[int, int] = (0, 1)
) -> dict[str, np.ndarray]:
    """Batch 0 of `batches`, the slice of this process; nothing is read ahead."""
    return _Shuffled(source, batch_size, seed, processes)[0]


def form(source, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one batch of `batches`, for all processes together."""
    example = source[np.arange(1)]
    return {
        name: jax.ShapeDtypeStruct((batch_size, *column.shape[1:]), column.dtype)
        for name, column in example.items()
    }


def test_batches(
    source, batch_size: int, processes: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """One pass over a split in order, in batches of one size.

    The last batch is filled up with copies of the last example.

    Args:
      source: a split of a `Dataset`.
      batch_size: examples in the batch of all processes together.
      processes: (index of this process, number of processes).

    Returns:
      An iterator over this process's slices. Besides the columns of the split each slice has
      "valid", bool [batch_size / processes], which is False for the copies.
    """
    return _in_threads(grain.MapDataset.source(_InOrder(source, batch_size, processes)))


test_batches.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test


def in_order(source, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """One pass over a split in order, in batches of at most `batch_size` examples."""
    for batch in test_batches(source, batch_size):
        valid = batch.pop("valid")
        yield {name: column[valid] for name, column in batch.items()}


def in_blocks(function: Callable, source, block: int):
    """What function(batch) gives for a whole split, in order, in batches of one size.

    Args:
      function: {name: [block, ...]} -> a pytree of arrays [block, ...] whose row i depends on
        example i alone; compiled, it sees one shape.
      source: a split of a `Dataset` with at least one example.
      block: examples that the function sees at once.

    Returns:
      The pytree, of numpy arrays [N, ...].
    """
    parts = []
    for batch in test_batches(source, block):
        count = int(batch.pop("valid").sum())
        leaves, form = jax.tree.flatten(function(batch))
        parts.append([np.asarray(leaf)[:count] for leaf in leaves])
    return jax.tree.unflatten(form, [np.concatenate(own) for own in zip(*parts, strict=True)])


def _in_threads(dataset: grain.MapDataset) -> Iterator[dict[str, np.ndarray]]:
    # Four threads are enough: most of the time goes to C code that releases the interpreter lock.
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

    One element is a whole batch, which is read at once. grain's own shuffling and batching take
    about 30 microseconds per example, which is too slow for small images.
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
