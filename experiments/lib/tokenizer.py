"""Texts as pieces of words and back to their characters; the package `tokenizers` does the work.

tokenizer = read_tokenizer("bert/vocab.txt")
ids, begins = encode(tokenizer, texts)[0]
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tokenizers

from experiments.lib.errors import UserError
from experiments.lib.segmenters import chinese_words
from experiments.lib.wordpieces import (
    BERT,
    ROBERTA,
    batches,
    read_tokenizer,
    train_tokenizer,
    whole,
    wordpiece,
    write_tokenizer,
)

__all__ = [
    "Pieces",
    "Specials",
    "chinese_words",
    "encode",
    "offsets",
    "ordinary",
    "read_tokenizer",
    "specials",
    "train_tokenizer",
    "wordpiece",
    "write_tokenizer",
]

# Pieces that no text gives: places kept for later, and two marks of Google's Chinese vocabulary.
_UNUSED = re.compile(r"\[unused\d+\]|madeupword\d+|<[ST]>")


class Specials(NamedTuple):
    """The ids of the special tokens."""

    pad: int
    unknown: int
    cls: int
    sep: int
    mask: int


class Pieces(NamedTuple):
    """A text as pieces, without special tokens around it.

    Attributes:
      ids: int32 [N].
      begins: bool [N], whether a piece begins a word.
    """

    ids: np.ndarray
    begins: np.ndarray


def specials(tokenizer: tokenizers.Tokenizer, name: str) -> Specials:
    """The ids of [PAD] [UNK] [CLS] [SEP] [MASK], or of RoBERTa's names for them.

    Args:
      tokenizer: from `read_tokenizer`, for example.
      name: of its file, for the message.

    Raises:
      UserError: one of them is missing.
    """
    ids = tokenizer.get_vocab()
    names = max(BERT, ROBERTA, key=lambda names: sum(x in ids for x in names))
    missing = [x for x in names if x not in ids]
    if missing:
        raise UserError(f"{name}: lacks {', '.join(missing)}; expected {' '.join(names)}")
    return Specials(*(ids[x] for x in names))


def ordinary(tokenizer: tokenizers.Tokenizer) -> np.ndarray:
    """The ids of the tokens that a text can have, to draw a random replacement from.

    Returns:
      int32 [N], rising; without special tokens and places such as [unused7].
    """
    added = tokenizer.get_added_tokens_decoder()
    special = {i for i, token in added.items() if token.special}
    ids = [
        i
        for piece, i in tokenizer.get_vocab().items()
        if i not in special and piece not in BERT + ROBERTA and not _UNUSED.fullmatch(piece)
    ]
    return np.sort(np.array(ids, np.int32))


def encode(
    tokenizer: tokenizers.Tokenizer,
    texts: Iterable[str],
    segment: Callable[[str], Iterable[str]] | None = None,
) -> list[Pieces]:
    """Texts as pieces, without special tokens around them, on all cores.

    With BERT's tokenizers, the ids of a text are those of its parts, one after another, wherever
    it is cut at spaces, tabs or line ends; not wherever `str.split` cuts it, since BERT drops
    vertical tabs and form feeds as control characters. Half of a surrogate pair counts as U+FFFD.

    Args:
      tokenizer: from `read_tokenizer`, for example.
      texts: any number.
      segment: text -> its words in order, which make the text when they are joined, such as
        `jieba.cut`. Pieces that start in one of them belong together: whole-word masking of Chinese
        (Cui et al. 2019, arXiv 1906.08101). Without it, a word is what the tokenizer separates
        before it cuts words into pieces; a Chinese character is one.

    Raises:
      ValueError: the words of `segment` are longer or shorter than the text.
    """
    found = []
    for batch in batches(map(whole, texts)):
        encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            ids = np.array(encoding.ids, np.int32)
            if segment is None:
                words = np.array(encoding.word_ids, np.int32)
            else:
                words = _segments(text, segment, encoding.offsets)
            found.append(Pieces(ids, np.diff(words, prepend=-1) != 0))
    return found


def _segments(text: str, segment: Callable[[str], Iterable[str]], spans: list) -> np.ndarray:
    """The number of the word in which each piece starts."""
    ends = np.cumsum(np.fromiter(map(len, segment(text)), np.int64))
    if (ends[-1] if len(ends) else 0) != len(text):
        raise ValueError(f"segment gives other words than {text[:60]!r}; expected its parts")
    return np.searchsorted(ends, [begin for begin, _ in spans], "right")


def offsets(tokenizer: tokenizers.Tokenizer, text: str) -> tuple[list[str], np.ndarray]:
    """The pieces of a text and the characters that each covers.

    A combining accent that the tokenizer strips belongs to the letter before it, also at the end
    of a word, where the package leaves it out: "cafe" covers all of a decomposed "Café".

    Returns:
      The pieces, without special tokens around them, and int32 [N, 2]: piece i is made of
      text[begin:end]. Several pieces of one character, as Korean ones, have the same span.
    """
    encoding = tokenizer.encode(whole(text), add_special_tokens=False)
    spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    if not text.isascii():
        bare = np.array([unicodedata.category(char) == "Mn" for char in text] + [False])
        for begin, end in spans:
            bare[begin:end] = False
        stops = np.flatnonzero(~bare)  # places of characters that are no stripped accents
        wide = spans[:, 1] > spans[:, 0]
        spans[wide, 1] = stops[np.searchsorted(stops, spans[wide, 1])]
    return encoding.tokens, spans
