"""A corpus as word pieces: as its texts give them one by one, however they are read and kept."""

import json
import os

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from experiments.lib.errors import UserError
from experiments.lib.sources import lines, pieces
from experiments.lib.sources.pieces import Vocabulary, of_docstrings, of_file
from experiments.lib.tokenizer import encode, read_tokenizer, specials, write_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [*SPECIAL, *LETTERS, *("##" + x for x in LETTERS), "the", "##ing", "猫", *"[].,"]
TEXT = "the king sings\na b, c.\nthe ring of the king brings nothing\n" * 3


@pytest.fixture
def load(tmp_path):
    """load(content, vocab, size, name, segment): the pieces of a file with this content."""

    def load(content, vocab=PIECES, size=100, name="text.txt", **options):
        path, place = tmp_path / name, None
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if vocab:
            place = tmp_path / "vocab.txt"
            place.write_text("\n".join(vocab), encoding="utf-8")
        return of_file(path, tmp_path / "corpora", Vocabulary(place, size, **options))

    return load


@pytest.fixture
def made(monkeypatch):
    """The corpora that were made."""
    found, write = [], pieces._write

    def counted(*args):
        found.append(args)
        write(*args)

    monkeypatch.setattr(pieces, "_write", counted)
    return found


def documents(corpus):
    """The pieces of each document, "|" before those that begin a word."""
    shown = [
        "|" * bool(begins) + corpus.tokenizer.id_to_token(int(i))
        for i, begins in zip(corpus.tokens, corpus.begins, strict=True)
    ]
    return ["".join(shown[a:b]) for a, b in zip(corpus.starts, corpus.starts[1:], strict=False)]


def same(one, other):
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.begins, other.begins)
    np.testing.assert_array_equal(one.starts, other.starts)
    assert one.tokenizer.to_str() == other.tokenizer.to_str()
    assert (one.name, one.notes) == (other.name, other.notes)


def test_by_hand(load):
    corpus = load(b"the King,  sing\n\n\xff the\n \nthe \xe7\x8c\xab!\nthe\n")
    assert corpus.name == "text"
    assert documents(corpus) == [
        "|the|k##ing|,|s##ing", "", "", "", "|the|猫|[UNK]", "|the"
    ]  # fmt: skip
    assert corpus.notes == (
        "1 of 6 lines are not UTF-8, the first is number 3: read as empty documents",
        "2 of 6 lines are blank, the first is number 2: read as empty documents",
    )
    assert [x.dtype for x in (corpus.tokens, corpus.begins, corpus.starts)] == [
        np.int32, bool, np.int64
    ]  # fmt: skip
    assert isinstance(corpus.tokens, np.memmap)
    assert isinstance(corpus.begins, np.memmap)


def test_json_lines(load):
    rows = [{"text": "the\nKing"}, None, {"text": "sing", "label": 3}, {"text": ""}]
    content = "\n".join(json.dumps(row) if row else "" for row in rows).encode()
    corpus = load(content + b'\n{"text": "\xff"}', name="text.jsonl")
    assert documents(corpus) == ["|the|k##ing", "", "|s##ing", "", ""]
    assert [note.split(",")[0] for note in corpus.notes] == [
        "1 of 5 lines are not UTF-8",
        "2 of 5 lines are blank",
    ]


def byte_level():
    """RoBERTa's kind of tokenizer, in which a space begins a word."""
    first = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    chars = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = first | {char: i for i, char in enumerate(chars, len(first))}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocab |= {"".join(pair): len(vocab) + i for i, pair in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(first))
    return tokenizer


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize(("words", "chunk"), [(2**10, 2**20), (3, 2**20), (3, 7), (1, 5)])
def test_long_documents_are_cut_without_a_trace(load, tmp_path, monkeypatch, kind, words, chunk):
    monkeypatch.setattr(pieces, "_WORDS", words)
    monkeypatch.setattr(pieces, "_TEXTS", 2)
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    if kind == "bert":
        corpus = load(TEXT)
    else:
        write_tokenizer(tmp_path / "roberta", byte_level())
        (tmp_path / "text.txt").write_text(TEXT)
        vocabulary = Vocabulary(tmp_path / "roberta", 0)
        corpus = of_file(tmp_path / "text.txt", tmp_path / "corpora", vocabulary)
    whole = encode(corpus.tokenizer, TEXT.splitlines())
    np.testing.assert_array_equal(corpus.tokens, np.concatenate([x.ids for x in whole]))
    np.testing.assert_array_equal(corpus.begins, np.concatenate([x.begins for x in whole]))
    np.testing.assert_array_equal(np.diff(corpus.starts), [len(x.ids) for x in whole])


def test_names_of_special_tokens_in_a_document_are_text(load, tmp_path):
    content = "a [MASK] b[SEP][PAD] [mask]\n<mask> </s>the\n"
    corpus = load(content)
    assert documents(corpus)[0] == (
        "|a|[|m##a##s##k|]|b|[|s##e##p|]|[|p##a##d|]|[|m##a##s##k|]"
    )  # fmt: skip
    special = specials(corpus.tokenizer, "")
    assert set(corpus.tokens) & {*special} <= {special.unknown}
    learned = load(content * 9, vocab=None)
    assert set(learned.tokens) & {*specials(learned.tokenizer, "")} <= {special.unknown}
    write_tokenizer(tmp_path / "roberta", byte_level())
    vocabulary = Vocabulary(tmp_path / "roberta", 0)
    corpus = of_file(tmp_path / "text.txt", tmp_path / "corpora", vocabulary)
    assert not set(corpus.tokens) & {*specials(corpus.tokenizer, "")}
    # The tokenizer itself stays as it was.
    assert corpus.tokenizer.to_str() == read_tokenizer(tmp_path / "roberta").to_str()
    assert corpus.tokenizer.encode("<mask>", add_special_tokens=False).ids == [4]


def test_a_learned_vocabulary_and_a_given_one(load):
    learned = load(TEXT, vocab=None)
    assert 20 < learned.tokenizer.get_vocab_size() <= 100
    assert not (learned.tokens == specials(learned.tokenizer, "").unknown).any()
    joined = [text.replace("|", "").replace("##", "") for text in documents(learned)]
    assert joined == [line.replace(" ", "") for line in TEXT.splitlines()]
    given = load(TEXT)
    assert given.tokenizer.get_vocab() == {piece: i for i, piece in enumerate(PIECES)}


def test_a_vocabulary_is_learned_from_the_first_texts(load, monkeypatch):
    monkeypatch.setattr(pieces, "_LEARNED", 60)
    corpus = load(TEXT + "zzz zzz\n" * 9, vocab=None)
    assert "z" not in corpus.tokenizer.get_vocab()


def test_pieces_of_a_segment_belong_together(load):
    def words(text):
        return [text[:4], text[4:]]

    corpus = load("the猫 king\n", segment=words, segmenter="by hand")
    assert documents(corpus) == ["|the猫|k##ing"]


def test_documentation_strings(tmp_path, monkeypatch, made):
    (tmp_path / "toy_pieces.py").write_text(
        '"""The king sings of\n\n    the ring and the king."""\n'
        'def f():\n    """The ring of the king brings nothing."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    vocabulary = Vocabulary(tmp_path / "vocab.txt", 0)
    first, again = (of_docstrings(["toy_pieces"], tmp_path, vocabulary) for _ in range(2))
    same(first, again)
    assert len(made) == 1
    assert first.name == "docstrings"
    assert [text.count("|") for text in documents(first)] == [10, 8]
    with pytest.raises(UserError, match="toy_missing"):
        of_docstrings(["toy_missing"], tmp_path, vocabulary)
    with pytest.raises(UserError, match="--docstrings toy_pieces: a vocabulary of 3 pieces; exp"):
        of_docstrings(["toy_pieces"], tmp_path, Vocabulary(None, 3))


def test_it_is_made_once(load, tmp_path, made, capsys):
    same(load(TEXT), of_file(*(arguments := (
        tmp_path / "text.txt", tmp_path / "corpora", Vocabulary(tmp_path / "vocab.txt", 100)
    ))))  # fmt: skip
    assert len(made) == 1
    (place,) = (tmp_path / "corpora").iterdir()
    assert place.name.startswith("text-pieces-")
    changes = (
        {"path": None},
        {"path": None, "size": 101},
        {"segmenter": "by hand", "segment": lambda text: [text]},
    )
    for number, change in enumerate(changes, 2):
        for _ in range(2):
            of_file(*arguments[:2], arguments[2]._replace(**change))
            assert len(made) == number
    os.utime(tmp_path / "text.txt", (1, 1))
    of_file(*arguments)
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "king"]), encoding="utf-8")
    assert "|king" in documents(of_file(*arguments))[0]
    assert len(made) == len(list((tmp_path / "corpora").iterdir())) == 6
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["index.npz", "tokens.int32", "begins.bool", "tokenizer.json"])
def test_damaged_files_are_made_again(load, tmp_path, made, capsys, name):
    whole = load(TEXT)
    whole = whole._replace(tokens=np.array(whole.tokens), begins=np.array(whole.begins))
    (folder,) = (tmp_path / "corpora").iterdir()
    content = (folder / name).read_bytes()
    arguments = tmp_path / "text.txt", tmp_path / "corpora", Vocabulary(tmp_path / "vocab.txt", 9)
    for damaged in (b"", content[:-5], None):
        if damaged is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damaged)
        same(whole, of_file(*arguments))
        assert capsys.readouterr().err == f"warning: {folder} is damaged; it is made again\n"
    assert len(made) == 4
    assert list((tmp_path / "corpora").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("content", "vocab", "message"),
    [
        ("", PIECES, "text.txt: is empty; expected a file with a document on each line"),
        ("\n \n\n", PIECES, "text.txt: no lines with a word; expected some text"),
        ("\n \n\n", None, "text.txt: the texts give 5 pieces, .* expected at least 16, from more"),
        ("a b".encode("utf-16"), PIECES, r"no lines with a word \(1 lines are not UTF-8\); exp"),
        ("a b".encode("utf-16"), None, r"from more text \(1 lines are not UTF-8\)"),
        ("a", PIECES[:4] + PIECES[5:], r"vocab.txt: lacks \[MASK\]; expected \[PAD\] \[UNK\]"),
        ("a", PIECES[:1] + PIECES[2:], r"vocab.txt: lacks \[UNK\]; expected a vocab.txt"),
    ],
)
def test_files_that_are_refused(load, tmp_path, content, vocab, message):
    with pytest.raises(UserError, match=message) as error:
        load(content, vocab)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("corpora/*"))


def test_places_that_are_refused(tmp_path):
    vocabulary = Vocabulary(None, 100)
    with pytest.raises(UserError, match=r"missing.txt: No such file.*; expected a file with a doc"):
        of_file(tmp_path / "missing.txt", tmp_path, vocabulary)
    with pytest.raises(UserError, match=r": is a folder; expected a file with a document on each"):
        of_file(tmp_path, tmp_path, vocabulary)
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(UserError, match=r"missing: No such file or directory; expected a vocab"):
        of_file(tmp_path / "text.txt", tmp_path, Vocabulary(tmp_path / "missing", 100))
