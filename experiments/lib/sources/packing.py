"""Documents packed into rows of one length, without loss and almost without padding."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from experiments.lib.sources.pieces import PieceCorpus
from experiments.lib.tokenizer import Specials

_FEW = 50  # documents


class Parts(NamedTuple):
    """Stretches of a corpus: tokens[starts[i]:starts[i] + lengths[i]], int64 [N]."""

    starts: np.ndarray
    lengths: np.ndarray

    def take(self, index) -> "Parts":
        """Some of them."""
        return Parts(self.starts[index], self.lengths[index])


def parts_of(starts: np.ndarray, most: int) -> Parts:
    """Cuts documents into parts of at most `most` tokens; each token is in exactly one part.

    Args:
      starts: int64 [D + 1], of documents that follow each other.
      most: tokens of a part; all parts of a document but its last have as many.
    """
    lengths = np.diff(starts)
    counts = -(-lengths // most)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts[:-1], counts) + most * number
    return Parts(first, np.minimum(np.repeat(starts[1:], counts) - first, most))


def pack(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Best-fit decreasing: each item, the longest first, goes where it leaves the least room.

    Rows are planned on the counts of the lengths, so planning takes as long for more items (Krell
    et al. 2021, arXiv 2107.02027); dealing the items out is one sort.

    Args:
      lengths: of the items, integers in 1 .. capacity, [N].
      capacity: of a row.

    Returns:
      The numbers of all items, int64 [N], row by row, and where the rows start, int64 [R + 1].
    """
    counts = np.bincount(lengths, minlength=capacity + 1)
    kinds: dict[int, list] = defaultdict(list)  # room left -> [(rows, ((length, items), ...))]
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        for room in sorted(kinds):
            if room >= length and left:
                left = _fill(kinds, room, length, left)
        if left:
            kinds[capacity].append((-(-left // (capacity // length)), ()))
            _fill(kinds, capacity, length, left)
    return _members(lengths, [kind for group in kinds.values() for kind in group])


def _fill(kinds: dict[int, list], room: int, length: int, left: int) -> int:
    """Puts up to `left` items into the rows that have `room`; returns how many are left."""
    each = room // length
    for rows, held in kinds.pop(room):
        full, rest = divmod(min(left, rows * each), each)
        split = ((each, full), (rest, int(rest > 0)), (0, rows - full - (rest > 0)))
        for items, count in split:
            if count:
                own = (*held, (length, items)) if items else held
                kinds[room - items * length].append((count, own))
        left -= full * each + rest
    return left


def _members(lengths: np.ndarray, kinds: list) -> tuple[np.ndarray, np.ndarray]:
    """Deals the items of each length, in order, to the rows that have a place for it."""
    order = np.argsort(lengths, kind="stable")
    dealt = np.concatenate([[0], np.cumsum(np.bincount(lengths))])
    rows, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for count, held in kinds:
        columns = []
        for length, items in held:
            own = order[dealt[length] : dealt[length] + count * items]
            dealt[length] += count * items
            columns.append(own.reshape(count, items))
        row = np.concatenate(columns, axis=1)
        rows.append(row.ravel())
        sizes.append(np.full(count, row.shape[1]))
    return np.concatenate(rows), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


class Rows:
    """A split of packed rows.

    Row r is {"ids": int32 [L], "documents": int32 [L], "begins": bool [L]}. Each part of a document
    stands there as [CLS] tokens [SEP]; `documents` numbers the parts of the row from 1 and is 0 at
    padding; `begins` is True where a word begins, and False at special tokens.
    """

    def __init__(
        self, pieces: PieceCorpus, parts: Parts, length: int, special: Specials, closing: int
    ):
        """Packs the parts.

        Args:
          pieces: the corpus.
          parts: of at most length - 1 - closing tokens.
          length: L.
          special: numbers of the special tokens.
          closing: how many [SEP] follow a part, 1 or 2.
        """
        self._pieces, self._parts, self._length = pieces, parts, length
        self._special, self._closing = special, closing
        self._members, self._rows = pack(parts.lengths + 1 + closing, length)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows) - 1

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One row, or a batch."""
        index = np.asarray(index)
        if np.any((index < 0) | (index >= len(self))):
            raise IndexError(f"rows {index.min()} to {index.max()}; expected 0 to {len(self) - 1}")
        flat, size = index.ravel(), self._length
        counts = self._rows[flat + 1] - self._rows[flat]
        member = self._members[_ranges(self._rows[flat], counts)]
        row = np.repeat(np.arange(len(flat)), counts)
        number = _ranges(np.ones_like(counts), counts)  # of a part in its row, from 1
        lengths = self._parts.lengths[member]
        taken = lengths + 1 + self._closing
        before = np.cumsum(taken) - taken
        first = row * size + before - before[np.searchsorted(row, row)]

        found = {
            "ids": np.full(len(flat) * size, self._special.pad, np.int32),
            "documents": np.zeros(len(flat) * size, np.int32),
            "begins": np.zeros(len(flat) * size, bool),
        }
        source, target = _ranges(self._parts.starts[member], lengths), _ranges(first + 1, lengths)
        found["ids"][target] = self._pieces.tokens[source]
        found["begins"][target] = self._pieces.begins[source]
        found["begins"][first + 1] = True  # a part may begin inside a word
        found["ids"][first] = self._special.cls
        for place in range(self._closing):
            found["ids"][first + lengths + 1 + place] = self._special.sep
        found["documents"][_ranges(first, taken)] = np.repeat(number, taken)
        return {name: column.reshape(*index.shape, size) for name, column in found.items()}


def _ranges(firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first, first + 1, ..., `count` numbers for each pair of first and count."""
    return np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)


def split_parts(parts: Parts, starts: np.ndarray, share: float) -> tuple[Parts, Parts]:
    """Draws a share of the documents for the test; the draw is always the same.

    With fewer than 50 documents it draws parts: a corpus may be one long text.

    Args:
      parts: of the documents, at least two.
      starts: int64 [D + 1], where the documents start.
      share: in (0, 1); at least one is drawn.

    Returns:
      The parts of training, and of the test.
    """
    document = np.searchsorted(starts, parts.starts, "right") - 1
    drawn = document if len(np.unique(document)) >= _FEW else np.arange(len(document))
    order = np.random.default_rng(0).permutation(np.unique(drawn))
    test = np.isin(drawn, order[: max(1, round(share * len(order)))])
    return parts.take(~test), parts.take(test)
