"""Turns a source of words into the files of a corpus: counts them, then numbers them."""

import array
import bisect
import itertools
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from experiments.lib.errors import UserError
from experiments.lib.sources import lines

TOKENS, INDEX = "tokens.int32", "index.npz"
STORED = np.dtype("<i4")  # of a token in the file


class Source(NamedTuple):
    """Documents that can be read twice.

    Attributes:
      name: for messages.
      what: its documents are, for messages.
      blocks: () -> their words.
      bad: numbers of the documents that are not UTF-8, in rising order.
    """

    name: str
    what: str
    blocks: Callable[[], Iterator[lines.Block]]
    bad: array.array = array.array("q")


def write(
    folder: pathlib.Path, source: Source, min_count: int, labels_path: pathlib.Path | None = None
) -> None:
    """Writes the files of a corpus: the tokens, and an .npz file with all else.

    Args:
      folder: is there and empty.
      source: the documents.
      min_count: words that occur less often are left out.
      labels_path: a file with a label on each line, in place of the source's own.

    Raises:
      UserError: fewer than two words occur often enough, there are more or fewer labels than
        documents, or the source cannot be read, or changes meanwhile.
    """
    words, counts, labels = _counted(source, min_count)
    starts, notes = _written(folder / TOKENS, source, words, min_count)
    if starts[-1] != counts.sum():
        raise UserError(f"{source.name}: changed while it was read; expected one that stays")
    if labels_path:
        labels = _Labels(lines.of_labels(labels_path))
        if len(labels) != len(starts) - 1:
            raise UserError(
                f"{labels_path}: has {len(labels)} labels; expected one a line for the"
                f" {len(starts) - 1} {source.what} of {source.name}"
            )
    classes, places = labels.sorted()
    texts = {
        "words": words,
        "classes": [name.encode() for name in classes],
        "notes": [note.encode() for note in notes],
    }
    joined = {name: np.frombuffer(b"\n".join(t), np.uint8) for name, t in texts.items()}
    arrays = {"counts": counts, "starts": starts, "labels": places, **joined}
    np.savez(folder / INDEX, allow_pickle=False, **arrays)


def _counted(source: Source, min_count: int) -> tuple[list[bytes], np.ndarray, "_Labels"]:
    """The vocabulary, how often each word occurs, and the source's own labels."""
    counter, labels = Counter[bytes](), _Labels()
    for block in source.blocks():
        counter.update(block.words)
        labels.add(block.labels)
    kept = sorted((-count, word) for word, count in counter.items() if count >= min_count)
    if len(kept) < 2:
        found = f"{kept[0][1].decode()!r} alone occurs" if kept else "no word occurs"
        bad = f" ({len(source.bad)} {source.what} are not UTF-8)" if source.bad else ""
        raise UserError(
            f"{source.name}: {found} {min_count} times{bad}; expected two different words or more,"
            " or a lower --min-count"
        )
    return [word for _, word in kept], np.array([-n for n, _ in kept], np.int64), labels


def _written(
    path: pathlib.Path, source: Source, words: list[bytes], min_count: int
) -> tuple[np.ndarray, list[str]]:
    """Writes the tokens; where the documents start, and notes on those that became empty."""
    numbers, starts, done = numbered(words), Starts(), 0
    broken, blank = Skipped("are not UTF-8"), Skipped("are blank")
    unknown = Skipped(f"have no word that occurs {min_count} times")
    broken.add(np.array(source.bad, np.int64))
    with path.open("wb") as file:
        for block in source.blocks():
            tokens, (lengths, known) = starts.add(block, numbers)
            file.write(tokens.astype(STORED, copy=False).tobytes())
            empty = done + np.flatnonzero(lengths == 0)
            unknown.add(done + np.flatnonzero((lengths > 0) & (known == 0)))
            first, last = (bisect.bisect_left(source.bad, n) for n in (done, done + len(lengths)))
            blank.add(np.setdiff1d(empty, source.bad[first:last]))
            done += len(lengths)
    skipped = (broken, blank, unknown)
    return starts.array(), [note for kind in skipped for note in kind.note(done, source.what)]


def numbered(words: Iterable[bytes]) -> dict[bytes, int]:
    """The place of each word in the vocabulary."""
    return {word: number for number, word in enumerate(words)}


class Starts:
    """Where the documents start, while blocks of words are turned into numbers."""

    def __init__(self):
        self._starts = array.array("q", [0])
        self._known = self._seen = self._last = 0  # words; of these, before the open document

    def add(self, block: lines.Block, numbers: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
        """The known words as int32, and the lengths [2, D] of the documents that end here.

        A document has the first length in the source and the second one in known words.
        """
        found = map(numbers.get, block.words, itertools.repeat(-1))
        tokens = np.fromiter(found, np.int32, len(block.words))
        known = tokens >= 0
        before = np.concatenate([[0], np.cumsum(known)])
        ends = np.array(block.ends, np.int64)
        starts = self._known + before[ends]
        lengths = np.stack(
            [
                np.diff(self._seen + ends, prepend=self._last),
                np.diff(starts, prepend=self._starts[-1]),
            ]
        )
        self._starts.frombytes(starts.tobytes())
        if ends.size:
            self._last = self._seen + int(ends[-1])
        self._seen += len(tokens)
        self._known += int(before[-1])
        return tokens[known], lengths

    def array(self) -> np.ndarray:
        """int64 [D + 1]."""
        return np.frombuffer(self._starts, np.int64)


class _Labels:
    """Labels in the order in which they come."""

    def __init__(self, names: Iterable[str | None] = ()):
        self._ids: dict[str | None, int] = {None: -1}
        self._found = array.array("i")
        self.add(names)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, names: Iterable[str | None]) -> None:
        """Adds the labels of the next documents, None where one has none."""
        self._found.extend(self._ids.setdefault(name, len(self._ids) - 1) for name in names)

    def sorted(self) -> tuple[list[str], np.ndarray]:
        """The names in order, as numbers if all are integers; the places of the labels among them.

        Without any label both are empty.
        """
        names = [name for name in self._ids if name is not None]
        if not names:
            return [], np.zeros(0, np.int32)
        whole = all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names)
        classes = sorted(names, key=lambda name: (int(name) if whole else 0, name))
        places = {name: place for place, name in enumerate(classes)}
        moved = np.array([places[name] for name in names] + [-1], np.int32)  # [-1] is the last
        return classes, moved[np.frombuffer(self._found, np.int32)]


class Skipped:
    """Counts documents that became empty."""

    def __init__(self, why: str):
        self._why, self._count, self._first = why, 0, 0

    def add(self, places: np.ndarray) -> None:
        """Adds documents, numbered from 0."""
        if places.size:
            self._first = self._first if self._count else int(places[0]) + 1
            self._count += places.size

    def note(self, total: int, what: str) -> list[str]:
        """One sentence, if there are any."""
        verb = f"{self._count} of {total} {what} {self._why}, the first is number {self._first}"
        return [f"{verb}: read as empty documents"] if self._count else []
