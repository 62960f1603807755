"""A corpus as word pieces: documents of numbered pieces, kept on disk."""

import array
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.lib import devices
from experiments.lib.errors import UserError
from experiments.lib.sources import docstrings, lines
from experiments.lib.sources.kept import identity, kept, place
from experiments.lib.sources.numbering import INDEX, STORED, TOKENS, Skipped, Source
from experiments.lib.tokenizer import encode, read_tokenizer, specials, train_tokenizer

_FORM = 2  # raise it where the code changes what is kept of the same source
_EXPECTED = "expected a file with a document on each line"
_BEGINS, _VOCABULARY = "begins.bool", "tokenizer.json"
_WORDS = 2**10  # words of a document that are tokenized at once
_TEXTS = 2**12  # texts that are tokenized at once
_LEARNED = 10**8  # characters that a vocabulary is learned from


class PieceCorpus(NamedTuple):
    """Documents as word pieces.

    Attributes:
      name: of the corpus.
      tokenizer: a `tokenizers.Tokenizer`.
      tokens: int32 [N], a memory map; the pieces of all documents, one after the other, without
        special tokens.
      begins: bool [N], a memory map: the piece begins a word.
      starts: int64 [D + 1]; document d is tokens[starts[d]:starts[d + 1]].
      notes: what was not read as it stood, one sentence each.
    """

    name: str
    tokenizer: Any
    tokens: np.ndarray
    begins: np.ndarray
    starts: np.ndarray
    notes: tuple[str, ...]


class Vocabulary(NamedTuple):
    """How texts become pieces.

    Attributes:
      path: a vocab.txt, a tokenizer.json or a folder with one of them; None: learned from the
        corpus.
      size: pieces of a learned vocabulary.
      segment: text -> its words, for languages without spaces, see `tokenizer.encode`; or None.
      segmenter: name and version of `segment`.
    """

    path: pathlib.Path | None
    size: int
    segment: Callable | None = None
    segmenter: str = ""


def of_file(path: pathlib.Path, folder: str | pathlib.Path, vocabulary: Vocabulary) -> PieceCorpus:
    """Opens a file as word pieces; process 0 reads it first if that was not done before.

    Args:
      path: a file with a document on each line; .jsonl: with {"text": ...}.
      folder: where the pieces are kept, shared by all processes and by any runs.
      vocabulary: how texts become pieces.

    Raises:
      UserError: a file cannot be read, is empty, or has a line of another form; the vocabulary
        lacks a special token; the file has no word.
    """
    facts = devices.together(lambda: identity(path, _EXPECTED))

    def source() -> Source:
        bad = lines.bad_lines(path)
        return Source(str(path), "lines", lambda: lines.of_file(path, bad), bad)

    return _pieces(source, path.stem, facts, folder, vocabulary, f"reading {path}")


def of_docstrings(
    packages: Sequence[str], folder: str | pathlib.Path, vocabulary: Vocabulary
) -> PieceCorpus:
    """The documentation strings of Python packages as word pieces; see `docstrings`.

    Raises:
      UserError: a package is not installed, or the vocabulary lacks a special token.
    """
    facts = devices.together(lambda: docstrings.versions(packages))

    def source() -> Source:
        texts = [(text.encode().split(), None) for _, text in docstrings.docstrings(packages)]
        name = f"--docstrings {','.join(packages)}"
        return Source(name, "texts", lambda: lines.of_documents(texts))

    doing = "reading the documentation strings of the packages"
    return _pieces(source, "docstrings", facts, folder, vocabulary, doing)


def _pieces(source, name: str, facts, folder, vocabulary: Vocabulary, doing: str) -> PieceCorpus:
    given = devices.together(lambda: vocabulary.path and read_tokenizer(vocabulary.path))
    if given:
        specials(given, str(vocabulary.path))
    learned = given.to_str() if given else vocabulary.size
    where = place(folder, f"{name[:40]}-pieces", _FORM, facts, learned, vocabulary.segmenter)

    def make(part: pathlib.Path) -> None:
        _write(part, source(), given, vocabulary)

    return kept(where, make, _open, doing)


def _write(folder: pathlib.Path, source: Source, tokenizer, vocabulary: Vocabulary) -> None:
    bad = f" ({len(source.bad)} {source.what} are not UTF-8)" if source.bad else ""
    if tokenizer is None:
        try:
            tokenizer = train_tokenizer(_beginning(source), vocabulary.size)
        except UserError as error:
            raise UserError(f"{source.name}: {error}{bad}") from None
    tokenizer.encode_special_tokens = True  # the name "[SEP]" in a document is text
    starts, done = array.array("q", [0]), 0
    with (folder / TOKENS).open("wb") as tokens, (folder / _BEGINS).open("wb") as begins:
        for texts, last in _together(_texts(source)):
            for pieces, ends in zip(
                encode(tokenizer, texts, vocabulary.segment), last, strict=True
            ):
                tokens.write(pieces.ids.astype(STORED, copy=False).tobytes())
                begins.write(pieces.begins.tobytes())
                done += len(pieces.ids)
                if ends:
                    starts.append(done)
    if not done:
        raise UserError(f"{source.name}: no {source.what} with a word{bad}; expected some text")
    broken, blank = Skipped("are not UTF-8"), Skipped("are blank")
    broken.add(np.array(source.bad, np.int64))
    blank.add(np.setdiff1d(np.flatnonzero(np.diff(starts) == 0), source.bad))
    notes = [note for kind in (broken, blank) for note in kind.note(len(starts) - 1, source.what)]
    joined = np.frombuffer("\n".join(notes).encode(), np.uint8)
    np.savez(folder / INDEX, allow_pickle=False, starts=np.array(starts), notes=joined)
    (folder / _VOCABULARY).write_text(tokenizer.to_str(), encoding="utf-8")


def _texts(source: Source) -> Iterator[tuple[str, bool]]:
    """The documents in order, long ones in parts cut before a space; True where one ends."""
    before: list[bytes] = []  # a word of no letters, in a part that continues a document
    for block in source.blocks():
        first = 0
        for number, end in enumerate([*block.ends, len(block.words)]):
            ends = number < len(block.ends)
            while end - first > _WORDS:
                yield b" ".join(before + block.words[first : first + _WORDS]).decode(), False
                before, first = [b""], first + _WORDS
            if ends or first < end:
                yield b" ".join(before + block.words[first:end]).decode(), ends
                before = [] if ends else [b""]
            first = end


def _beginning(source: Source) -> Iterator[str]:
    """The first texts, as many as a vocabulary is learned from."""
    left = _LEARNED
    for text, _ in _texts(source):
        yield text
        left -= len(text)
        if left < 0:
            return


def _together(texts: Iterator[tuple[str, bool]]) -> Iterator[tuple[list[str], list[bool]]]:
    """Many texts at once, for the tokenizer has threads."""
    while found := list(itertools.islice(texts, _TEXTS)):
        yield [text for text, _ in found], [ends for _, ends in found]


def _open(folder: pathlib.Path) -> PieceCorpus | None:
    try:
        with (folder / INDEX).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            starts, notes = file["starts"], file["notes"].tobytes().decode()
        count = int(starts[-1])
        size = (STORED.itemsize * count, count)
        if tuple(os.path.getsize(folder / name) for name in (TOKENS, _BEGINS)) != size:
            return None
        tokenizer = read_tokenizer(folder / _VOCABULARY)
        tokens = np.memmap(folder / TOKENS, STORED, "r")
        begins = np.memmap(folder / _BEGINS, bool, "r")
    except Exception:  # a damaged file fails in many ways; it is made again
        return None
    name = folder.name.rpartition("-pieces-")[0]
    return PieceCorpus(name, tokenizer, tokens, begins, starts, tuple(notes.splitlines()))
