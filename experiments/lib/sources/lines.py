"""Documents as words, a block at a time, so that files larger than memory can be read."""

import array
import bisect
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from experiments.lib.errors import UserError

_CHUNK = 2**20  # bytes that are read at once
_LONGEST = 2**20  # bytes of a word
_WORDS = 2**16  # of a block that is put together from whole documents
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \n\t\r\v\f"


class Block(NamedTuple):
    """Words that follow each other in a source; documents need not begin or end with the block.

    Attributes:
      words: in UTF-8.
      ends: for each document that ends here, the number of words of the block up to there.
      labels: of these documents, None where one has none; an empty list: the source has no labels.
    """

    words: list[bytes]
    ends: list[int]
    labels: list[str | None]


def is_json(path: pathlib.Path) -> bool:
    """Whether the lines of a file are JSON objects, by its name."""
    return path.suffix.lower() == ".jsonl"


def bad_lines(path: pathlib.Path) -> array.array:
    """The numbers of the lines that are not UTF-8, from 0 in rising order.

    Raises:
      UserError: the file cannot be read, or has a word of more than a megabyte.
    """
    bad, done = array.array("q"), 0
    for block in _lines(path) if is_json(path) else _whole_words(path):
        if not _is_utf8(block):
            for number, line in enumerate(block.split(b"\n"), done):
                if not _is_utf8(line) and number not in bad[-1:]:  # a line may have many blocks
                    bad.append(number)
        done += block.count(b"\n")
    return bad


def of_file(path: pathlib.Path, bad: array.array) -> Iterator[Block]:
    """The words of a file with a document on each line.

    Words end at ASCII whitespace, lines at line feeds. A file whose name ends in .jsonl has an
    object {"text": ..., "label": ...} on each line; the label, text or an integer, may be missing.
    Blank lines are empty documents there as well. A byte order mark is dropped.

    Args:
      path: the file.
      bad: numbers of lines that become empty documents, in rising order.

    Raises:
      UserError: the file cannot be read, or a line is no such object.
    """
    return _of_json(path, bad) if is_json(path) else _of_plain(path, bad)


def of_documents(documents: Iterable[tuple[list[bytes], str | None]]) -> Iterator[Block]:
    """Blocks of whole documents, (words, label)."""
    words: list[bytes] = []
    ends: list[int] = []
    labels: list[str | None] = []
    for own, label in documents:
        words += own
        ends.append(len(words))
        labels.append(label)
        if max(len(words), len(ends)) >= _WORDS:
            yield Block(words, ends, labels)
            words, ends, labels = [], [], []
    yield Block(words, ends, labels)


def of_labels(path: pathlib.Path) -> Iterator[str | None]:
    """The labels of a file with one on each line; a blank line is None.

    Raises:
      UserError: the file cannot be read, or a line is not UTF-8.
    """
    for number, line in enumerate(_lines(path), 1):
        try:
            yield line.decode().strip() or None
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number} is not UTF-8; expected a label") from None


def _of_plain(path: pathlib.Path, bad: array.array) -> Iterator[Block]:
    block, done = b"\n", 0
    for block in _whole_words(path):
        lines = block.split(b"\n")  # the last one goes on in the next block
        first, last = (bisect.bisect_left(bad, n) for n in (done, done + len(lines)))
        for number in bad[first:last]:
            lines[number - done] = b""
        parts = [line.split() for line in lines]
        ends = list(itertools.accumulate(map(len, parts)))[:-1]
        yield Block(list(itertools.chain.from_iterable(parts)), ends, [])
        done += len(lines) - 1
    if not block.endswith(b"\n"):
        yield Block([], [0], [])


def _of_json(path: pathlib.Path, bad: array.array) -> Iterator[Block]:
    def documents():
        for number, line in enumerate(_lines(path)):
            place = bisect.bisect_left(bad, number)
            if number in bad[place : place + 1] or not line.strip():
                yield [], None
            else:
                yield _parsed(path, number + 1, line)

    return of_documents(documents())


def _parsed(path: pathlib.Path, number: int, line: bytes) -> tuple[list[bytes], str | None]:
    try:
        content = json.loads(line)
        text = content["text"].encode()
        label = content.get("label")
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            raise TypeError
        name = "" if label is None else " ".join(str(label).split())
        name.encode()
    # No JSON; no object, no text, or another label; nested too deep; half a surrogate pair.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f'{path}: line {number} is {_shown(line)}; expected {{"text": "...", "label": "..."}},'
            " the label text, an integer or left out"
        ) from None
    return text.split(), name or None


def _shown(line: bytes) -> str:
    text = line.strip().decode(errors="replace")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whole_words(path: pathlib.Path) -> Iterator[bytes]:
    """The content in blocks that end with whitespace; the last one may end with a word."""
    with _opened(path) as file:
        done, rest = 0, b""
        while chunk := file.read(_CHUNK):
            block = rest + chunk
            cut = 1 + max(block.rfind(space) for space in _SPACE)
            done += block.count(b"\n", 0, cut)
            rest = block[cut:]
            if len(rest) > _LONGEST:
                raise UserError(
                    f"{path}: line {done + 1} has a word of more than {_LONGEST} bytes; expected"
                    " words with spaces between them"
                )
            if cut:
                yield block[:cut]
        if rest:
            yield rest


def _lines(path: pathlib.Path) -> Iterator[bytes]:
    with _opened(path) as file:
        yield from file


def _opened(path: pathlib.Path) -> BinaryIO:
    """The file, behind its byte order mark."""
    try:
        file = path.open("rb")
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file that can be read") from None
    return file


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
