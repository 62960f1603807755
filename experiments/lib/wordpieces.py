"""Tokenizers of WordPieces: vocabularies read from files, trained on texts, and written."""

import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from experiments.lib.artefacts import check_writable
from experiments.lib.errors import UserError
from experiments.lib.workdir import read_json, write_atomic, write_json

# Padding, unknown, class, separator and mask in the vocabularies of BERT and RoBERTa.
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_NAMED = re.compile(r"\[.*\]|<.*>", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST = 100  # characters of a word; a longer one is [UNK], as in Google's BERT
_BATCH = 2**20  # characters of a batch
_FEWEST = 16  # pieces of a trained vocabulary, with the special ones
_COVERED = 0.9995  # of all characters; SentencePiece's figure for Chinese and Japanese
_EXPECTED = "expected a vocab.txt with a WordPiece on each line, or a tokenizer.json"


def read_tokenizer(path: str | pathlib.Path) -> tokenizers.Tokenizer:
    """Reads a tokenizer; nothing in such files can run code.

    Args:
      path: a tokenizer.json, a vocab.txt with a WordPiece of BERT on each line, or a folder with
        one of them, tokenizer.json first. A tokenizer_config.json in the folder says whether a
        vocab.txt is lower-cased (do_lower_case, true where it is missing). Without one, it is
        unless a piece has a capital letter of ASCII; names such as [UNK] and <S> do not count.

    Returns:
      The tokenizer, without truncation and padding.

    Raises:
      UserError: a file cannot be read or is of another kind; a vocab.txt has an empty line, a line
        that is not UTF-8, a piece twice, or no [UNK].
    """
    path = pathlib.Path(path)
    config = None
    if path.is_dir():
        folder, path = path, path / "tokenizer.json"
        if not path.exists():
            path = folder / "vocab.txt"
            config = read_json(folder / "tokenizer_config.json")
        if not path.exists():
            raise UserError(f"{folder}: has neither tokenizer.json nor vocab.txt; {_EXPECTED}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {_EXPECTED}") from None
    if path.suffix == ".json":
        return _of_json(path, content)
    pieces = _of_lines(path, content)
    try:
        return _configured(pieces, config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _of_json(path: pathlib.Path, content: bytes) -> tokenizers.Tokenizer:
    expected = "expected a tokenizer.json of the package tokenizers"
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the package raises no kind of its own
        raise UserError(f"{path}: {' '.join(str(error).split())}; {expected}") from None
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and tokenizer.token_to_id(unknown) is None:
        raise UserError(f"{path}: lacks {unknown}, its unk_token; {expected}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _of_lines(path: pathlib.Path, content: bytes) -> list[str]:
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    pieces = []
    for number, line in enumerate(lines, 1):
        try:
            pieces.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError:
            raise UserError(f"{path}: line {number} is not UTF-8; {_EXPECTED}") from None
    return pieces


def _configured(pieces: list[str], config: dict | None) -> tokenizers.Tokenizer:
    """WordPieces with the settings of a tokenizer_config.json, or of the pieces themselves."""
    if config is None:
        ordinary = (piece for piece in pieces if not _NAMED.fullmatch(piece))
        return wordpiece(pieces, lower=not any(re.search("[A-Z]", piece) for piece in ordinary))
    defaults: dict[str, Any] = {
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
    }
    found = {key: config.get(key, default) for key, default in defaults.items()}
    for key, value in found.items():
        if not isinstance(value, bool) and (key, value) != ("strip_accents", None):
            raise UserError(f"{key} {value} in tokenizer_config.json; expected true or false")
    lower, chinese, strip = found.values()
    tokenizer = wordpiece(pieces, lower=lower)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lower, handle_chinese_chars=chinese, strip_accents=strip
    )
    return tokenizer


def wordpiece(pieces: Sequence[str], *, lower: bool = True) -> tokenizers.Tokenizer:
    """BERT's tokenizer of a vocabulary.

    Control characters are dropped and CJK characters, punctuation and words separated; each word
    is cut greedily into its longest pieces, and is [UNK] where it has more than 100 characters or
    cannot be cut. The names of special tokens stand for them in a text as well, as they do in
    transformers; `encode_special_tokens = True` of the tokenizer makes them ordinary text.

    Args:
      pieces: piece i has id i; "##" marks those that continue a word.
      lower: letters become small ones and lose their accents.

    Raises:
      UserError: a piece is empty or stands there twice, or there is no [UNK].
    """
    ids: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        if not piece:
            raise UserError(f"line {i + 1} is empty; expected a WordPiece")
        if ids.setdefault(piece, i) != i:
            raise UserError(
                f"line {i + 1}: {piece} stands in line {ids[piece] + 1} too; expected it once"
            )
    if "[UNK]" not in ids:
        raise UserError(f"lacks [UNK]; {_EXPECTED}")
    tokenizer = _bert(ids, lower)
    tokenizer.add_special_tokens([name for name in BERT if name in ids])
    if "[CLS]" in ids and "[SEP]" in ids:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
        )
    return tokenizer


def _bert(ids: dict[str, int], lower: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_LONGEST)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def train_tokenizer(
    texts: Iterable[str], size: int, *, lower: bool = True, progress: bool = False
) -> tokenizers.Tokenizer:
    """Learns WordPieces: pairs of pieces are joined, the most frequent one first.

    The same texts give the same vocabulary. The package numbers the characters that continue a
    word in the random order of a hash map, and equally frequent pairs are joined in the order of
    these numbers. So we collect the characters first, and give them to the trainer in order.

    Args:
      texts: the corpus. It is read twice; an iterator is held in memory.
      size: of the vocabulary at most. It begins with [PAD] [UNK] [CLS] [SEP] [MASK]. Characters
        come next: the most frequent ones, up to 0.9995 of the corpus, or more up to a tenth of
        the vocabulary. Pairs that occur once are not joined.
      lower: see `wordpiece`.
      progress: shows bars on stderr.

    Raises:
      UserError: the texts give less than 16 pieces, or size is less.
    """
    if size < _FEWEST:
        raise UserError(f"a vocabulary of {size} pieces; expected at least {_FEWEST}")
    texts = list(texts) if isinstance(texts, Iterator) else texts
    learner = _bert({}, lower)
    first = [*BERT, *_alphabet(texts, size - len(BERT), learner)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=first,  # they get their numbers in this order
        limit_alphabet=0,  # no others
        show_progress=progress,
    )
    learner.train_from_iterator((whole(text) for text in texts), trainer)
    ids = learner.get_vocab(with_added_tokens=False)
    if len(ids) < _FEWEST:
        raise UserError(
            f"the texts give {len(ids)} pieces, {len(BERT)} of them special; expected at least"
            f" {_FEWEST}, from more text"
        )
    return wordpiece(sorted(ids, key=ids.__getitem__), lower=lower)


def _alphabet(texts: Iterable[str], room: int, learner: tokenizers.Tokenizer) -> list[str]:
    """The characters that become pieces in sorted order, then those that may continue a word."""
    codes = np.zeros(0x110000, np.int64)
    for batch in batches(texts):
        raw = "".join(batch).encode("utf-32-le", "surrogatepass")
        codes += np.bincount(np.frombuffer(raw, "<u4"), minlength=len(codes))
    codes[0xD800:0xE000] = 0
    counts: dict[str, int] = {}
    for code in np.flatnonzero(codes):
        for char in learner.normalizer.normalize_str(chr(code)).replace(" ", ""):
            counts[char] = counts.get(char, 0) + int(codes[code])
    left, total = _COVERED * sum(counts.values()), 0
    single: list[str] = []
    joined: list[str] = []
    for char in sorted(counts, key=lambda c: (-counts[c], c)):
        word = learner.normalizer.normalize_str("a" + char)
        continues = len(learner.pre_tokenizer.pre_tokenize_str(word)) == 1
        total = len(single) + len(joined) + 1 + continues
        if total > room or (left <= 0 and total > room / 10):
            break
        left -= counts[char]
        single.append(char)
        joined += ["##" + char] * continues
    return sorted(single) + sorted(joined)


def write_tokenizer(folder: str | pathlib.Path, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes a folder that `read_tokenizer` and AutoTokenizer of transformers read.

    It gets tokenizer.json, tokenizer_config.json and, of WordPieces numbered without gaps,
    vocab.txt.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    check_writable(folder)
    ids = tokenizer.get_vocab(with_added_tokens=False)
    pieces, normalizer = sorted(ids, key=ids.__getitem__), tokenizer.normalizer
    keys = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    named = [*zip(keys, BERT, strict=True), *zip(keys, ROBERTA, strict=True)]
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {key: name for key, name in named if tokenizer.token_to_id(name) is not None}
    if isinstance(tokenizer.model, models.WordPiece) and _fit_for_lines(ids):
        write_atomic(folder / "vocab.txt", "".join(p + "\n" for p in pieces).encode())
        if isinstance(normalizer, normalizers.BertNormalizer):
            config |= {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer.lowercase,
                "tokenize_chinese_chars": normalizer.handle_chinese_chars,
                "strip_accents": normalizer.strip_accents,
            }
    write_json(folder / "tokenizer_config.json", config)
    content = json.loads(tokenizer.to_str()) | {"truncation": None, "padding": None}
    write_atomic(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False).encode())


def _fit_for_lines(ids: dict[str, int]) -> bool:
    """Whether the numbers of the lines can be the ids."""
    return sorted(ids.values()) == list(range(len(ids))) and not any("\n" in piece for piece in ids)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts of about a million characters together."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
