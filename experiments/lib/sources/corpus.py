"""A corpus: documents of numbered words, kept on disk so that it may be larger than memory."""

import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.lib import devices
from experiments.lib.errors import UserError
from experiments.lib.sources import docstrings, lines
from experiments.lib.sources.kept import identity, kept, place
from experiments.lib.sources.numbering import INDEX, STORED, TOKENS, Source, Starts, numbered, write

_FORM = 1  # raise it where the code changes what is kept of the same source
_EXPECTED = "expected a file with a document on each line"


class Corpus(NamedTuple):
    """Documents as numbers of the words of a vocabulary; words that are not in it are left out.

    Attributes:
      name: of the corpus.
      words: the vocabulary, the most frequent one first, equally frequent ones in order.
      counts: int64 [V], how often each occurs.
      tokens: int32 [N], a memory map; the known words of all documents, one after the other.
      starts: int64 [D + 1]; document d is tokens[starts[d]:starts[d + 1]]. A document without a
        known word is empty, so that document d is line d of the file.
      labels: int32 [D], -1 where a document has none; None: the corpus has no labels.
      classes: names of the labels 0, 1, ...
      notes: what was not read as it stood, one sentence each.
    """

    name: str
    words: tuple[str, ...]
    counts: np.ndarray
    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]


class Blocks:
    """The words of a corpus in blocks of one length, as a split; blocks may span documents.

    Block i is {"tokens": int32 [L], "documents": int32 [L]}: the words i L, i L + 1, ... of the
    corpus and the numbers of their documents. The last block is filled up with -1 in both.
    """

    def __init__(self, corpus: Corpus, length: int):
        self._tokens, self._starts = np.asarray(corpus.tokens), corpus.starts
        self._length = length

    def __len__(self) -> int:
        """Number of blocks."""
        return math.ceil(len(self._tokens) / self._length)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One block, or a batch."""
        index = np.asarray(index)
        if np.any((index < 0) | (index >= len(self))):
            raise IndexError(
                f"blocks {index.min()} to {index.max()}; expected 0 to {len(self) - 1}"
            )
        places = index[..., None] * self._length + np.arange(self._length)
        valid = places < len(self._tokens)
        places = np.minimum(places, len(self._tokens) - 1)
        # Of several documents that start at a place, all but the last are empty.
        documents = np.searchsorted(self._starts, places, "right") - 1
        return {
            "tokens": np.where(valid, self._tokens[places], -1).astype(np.int32),
            "documents": np.where(valid, documents, -1).astype(np.int32),
        }


def load_corpus(
    path: str | pathlib.Path, folder: str | pathlib.Path, min_count: int, labels_path: str = ""
) -> Corpus:
    """Opens a file as a corpus; process 0 reads it first if that was not done before.

    Words end at whitespace and keep their case, see `lines.of_file`. Memory is needed for all
    different words, for a number per document, and for one line of a .jsonl file.

    Args:
      path: a file with a document on each line; .jsonl: with {"text": ..., "label": ...}.
      folder: where the numbers are kept, shared by all processes and by any runs.
      min_count: words that occur less often are left out.
      labels_path: a file with the label of each document on a line; a blank line is no label. It
        replaces the labels of a .jsonl file.

    Raises:
      UserError: a file cannot be read, is empty, or has a line of another form; fewer than two
        words occur often enough; there are more or fewer labels than documents.
    """
    path, second = pathlib.Path(path), pathlib.Path(labels_path)
    files = [path, second] if labels_path else [path]
    facts = devices.together(lambda: [identity(file, _EXPECTED) for file in files])

    def make(part: pathlib.Path) -> None:
        bad = lines.bad_lines(path)
        source = Source(str(path), "lines", lambda: lines.of_file(path, bad), bad)
        write(part, source, min_count, second if labels_path else None)

    return kept(_place(folder, path.stem, min_count, *facts), make, _open, f"reading {path}")


def load_docstrings(packages: Sequence[str], folder: str | pathlib.Path, min_count: int) -> Corpus:
    """The documentation strings of Python packages as a corpus, labelled; see `docstrings`.

    Args:
      packages: their names; "stdlib" is the standard library.
      folder: where the numbers are kept, shared by all processes and by any runs.
      min_count: words that occur less often are left out.

    Raises:
      UserError: a package is not installed, or fewer than two words occur often enough.
    """
    versions = devices.together(lambda: docstrings.versions(packages))

    def make(part: pathlib.Path) -> None:
        documents = [
            (" ".join(docstrings.words(text)).encode().split(), label)
            for label, text in docstrings.docstrings(packages)
        ]
        name = f"--docstrings {','.join(packages)}"
        write(part, Source(name, "texts", lambda: lines.of_documents(documents)), min_count)

    where = _place(folder, "docstrings", min_count, versions)
    return kept(where, make, _open, "reading the documentation strings of the packages")


def encode(words: Sequence[str], texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """New documents as numbers of a vocabulary's words, split at whitespace as those of a file.

    Texts for a corpus of documentation strings are made " ".join(docstrings.words(text)) before.

    Args:
      words: the vocabulary, see `Corpus`.
      texts: the documents.

    Returns:
      tokens int32 [N] and starts int64 [D + 1], see `Corpus`.
    """
    numbers = numbered(word.encode() for word in words)
    # Half of a surrogate pair is no UTF-8, and so in no vocabulary.
    documents = ((text.encode(errors="surrogatepass").split(), None) for text in texts)
    tokens, starts = [np.zeros(0, np.int32)], Starts()
    for block in lines.of_documents(documents):
        known, _ = starts.add(block, numbers)
        tokens.append(known)
    return np.concatenate(tokens), starts.array()


def _place(folder: str | pathlib.Path, name: str, min_count: int, *content) -> pathlib.Path:
    if min_count < 1:
        raise UserError(f"--min-count {min_count}: expected an integer of at least 1")
    return place(folder, name, _FORM, min_count, content)


def _open(folder: pathlib.Path) -> Corpus | None:
    try:
        with (folder / INDEX).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        words, classes, notes = (_texts(held[name]) for name in ("words", "classes", "notes"))
        counts, starts, labels = held["counts"], held["starts"], held["labels"]
        size = os.path.getsize(folder / TOKENS)
        if size != STORED.itemsize * starts[-1] or len(words) != len(counts):
            return None
        tokens = np.memmap(folder / TOKENS, STORED, "r")
    except Exception:  # a damaged file fails in many ways; it is made again
        return None
    name, given = folder.name.rpartition("-")[0], labels if labels.size else None
    return Corpus(name, words, counts, tokens, starts, given, classes, notes)


def _texts(joined: np.ndarray) -> tuple[str, ...]:
    return tuple(joined.tobytes().decode().split("\n")) if joined.size else ()
