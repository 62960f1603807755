"""WordPieces: files read and refused, training that repeats itself, words, characters covered."""

# ruff: noqa: RUF001  Greek and Cyrillic letters are meant

import json
import os
import random
import subprocess
import sys
import types
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments.lib.errors import UserError
from experiments.lib.tokenizer import (
    Specials,
    chinese_words,
    encode,
    offsets,
    ordinary,
    read_tokenizer,
    specials,
    train_tokenizer,
    wordpiece,
    write_tokenizer,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzσα\u1112\u1161\u11ab"
PIECES = [
    *SPECIAL, "[unused1]", "<S>", *LETTERS, *("##" + x for x in LETTERS), *".,!'[]0123456789",
    "the", "##ing", "cafe", "naive", "this", "is", "##is", "中", "文", "国", "人", "ア", "##リ",
    "##ハ", "😀", "##\u0301", "ﬁ",
]  # fmt: skip
CASED = [*PIECES, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "Café", "##é"]
TOKENIZERS = {"lower": wordpiece(PIECES), "cased": wordpiece(CASED, lower=False)}
KINDS = pytest.mark.parametrize("kind", TOKENIZERS)
# Letters, accents, Chinese, Korean, control characters, emoji, halves of pairs, and all the rest.
CHARS = (
    "aeTΣσIéïüßŉİ\u0301\u0308\u0327\u0345中文国バア한국😀👩\u200d\ufe0f🏽ﬁ½々[]<>#.,'"
    "\x00\x10\x0b\x1c\x85\ufffd\u3000 \t\n\r"
)
TEXTS = st.text(st.sampled_from(CHARS) | st.characters() | st.just("\ud800"), max_size=30)


def lines(*pieces, end="\n"):
    return "".join(piece + end for piece in pieces).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_reads_a_vocabulary(tmp_path, end):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" * (end == "\n") + lines(*PIECES, end=end).removesuffix(b"\n"))
    if end == "\r\n":
        path.write_bytes(lines(*PIECES, end=end))
    tokenizer = read_tokenizer(str(path))
    assert tokenizer.get_vocab() == {piece: i for i, piece in enumerate(PIECES)}
    assert tokenizer.encode("The [MASK]ing, Café").tokens == [
        "[CLS]", "the", "[MASK]", "i", "##n", "##g", ",", "cafe", "[SEP]"
    ]  # fmt: skip
    pair = tokenizer.encode("the", "is")
    assert (pair.tokens[2], pair.type_ids) == ("[SEP]", [0, 0, 0, 1, 1])
    assert tokenizer.decode(tokenizer.encode("thising").ids) == "thising"


@pytest.mark.parametrize(
    ("pieces", "config", "expected"),
    [
        (PIECES, None, ["the", "cafe"]),
        (CASED, None, ["T", "##h", "##e", "Café"]),
        (CASED, {}, ["the", "cafe"]),
        (CASED, {"do_lower_case": False}, ["T", "##h", "##e", "Café"]),
        (
            CASED,
            {"do_lower_case": False, "strip_accents": True},
            [*"T", "##h", "##e", "C", "##a", "##f", "##e"],
        ),
        (PIECES, {"do_lower_case": False}, ["[UNK]", "[UNK]"]),
    ],
)
def test_small_letters_where_the_folder_or_the_pieces_say_so(tmp_path, pieces, config, expected):
    (tmp_path / "vocab.txt").write_bytes(lines(*pieces))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = read_tokenizer(tmp_path).encode("The Café", add_special_tokens=False).tokens
    assert found == expected


def test_chinese_characters_stay_in_words_where_the_folder_says_so(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(lines(*PIECES))
    config = tmp_path / "tokenizer_config.json"
    for whole, expected in ((True, ["中", "文"]), (False, ["[UNK]"])):
        config.write_text(json.dumps({"tokenize_chinese_chars": whole}))
        assert read_tokenizer(tmp_path).encode("中文", add_special_tokens=False).tokens == expected


REFUSES = [
    ("line 6: the stands in line 4 too; expected it once", "vocab.txt",
     lines("[UNK]", "a", "b", "the", "c", "the")),
    ("line 2 is empty; expected a WordPiece", "vocab.txt", lines("[UNK]", "", "a")),
    ("line 3 is not UTF-8; expected a vocab.txt", "vocab.txt", lines("[UNK]", "a") + b"\xff\n"),
    ("lacks .UNK.; expected a vocab.txt with", "vocab.txt", lines("a", "b")),
    ("lacks .UNK.; expected a vocab.txt with", "vocab.txt", b""),
    ("expected a tokenizer.json", "tokenizer.json", b"{"),
    ("expected a tokenizer.json", "tokenizer.json", b"\xff"),
    ("expected a tokenizer.json", "tokenizer.json", b"[" * 10_000),
    ("expected a tokenizer.json", "tokenizer.json", b'{"model_type": "bert"}'),
    (r"lacks \[UNK\], its unk_token; expected", "tokenizer.json",
     Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]")).to_str(pretty=True).encode()),
]  # fmt: skip


@pytest.mark.parametrize(("message", "name", "content"), REFUSES)
def test_refuses(tmp_path, message, name, content):
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=message) as caught:
            read_tokenizer(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_refuses_what_is_not_there_or_says_nonsense(tmp_path):
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.txt; expected"):
        read_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"vocab.txt: No such file .*; expected a vocab.txt"):
        read_tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_bytes(lines(*PIECES))
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: "yes"}))
        with pytest.raises(UserError, match=f"{key} yes in tokenizer_config.json; expected true"):
            read_tokenizer(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder"):
        write_tokenizer(tmp_path / "file", TOKENIZERS["lower"])


def test_of_a_tokenizer_json_the_truncation_and_padding_are_dropped(tmp_path):
    tokenizer = wordpiece(PIECES)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    assert read_tokenizer(path).encode("the " * 9).tokens == ["[CLS]", *["the"] * 9, "[SEP]"]
    write_tokenizer(tmp_path, tokenizer)
    assert len(Tokenizer.from_file(str(path)).encode("the " * 9).ids) == 11


@KINDS
def test_a_written_folder_is_read_from_either_file(tmp_path, kind):
    tokenizer, text = TOKENIZERS[kind], "The Café [MASK] 中文 thising"
    write_tokenizer(tmp_path, tokenizer)
    names = {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert read_tokenizer(tmp_path).to_str() == tokenizer.to_str()
    (tmp_path / "tokenizer.json").unlink()
    assert read_tokenizer(tmp_path).encode(text).ids == tokenizer.encode(text).ids
    assert (tmp_path / "vocab.txt").read_text().split("\n")[:-1] == (
        PIECES if kind == "lower" else CASED
    )
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["do_lower_case"], config["mask_token"]) == (kind == "lower", "[MASK]")


def roberta():
    names = ["<s>", "<pad>", "</s>", "<unk>", "a", "Ġ", "Ġa", "madeupword0000", "<mask>"]
    tokenizer = Tokenizer(models.BPE({x: i for i, x in enumerate(names)}, [("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer


def test_a_tokenizer_of_another_kind(tmp_path):
    tokenizer = roberta()
    assert specials(tokenizer, "file") == Specials(pad=1, unknown=3, cls=0, sep=2, mask=8)
    np.testing.assert_array_equal(ordinary(tokenizer), [4, 5, 6])
    (found,) = encode(tokenizer, ["aa a"])
    np.testing.assert_array_equal(found.ids, [4, 4, 6])
    np.testing.assert_array_equal(found.begins, [True, False, True])
    write_tokenizer(tmp_path, tokenizer)
    assert not (tmp_path / "vocab.txt").exists()
    assert read_tokenizer(tmp_path).to_str() == tokenizer.to_str()


def test_special_and_ordinary_tokens():
    tokenizer = wordpiece(PIECES)
    tokenizer.add_special_tokens(["[SPO]"])
    tokenizer.add_tokens(["blood pressure"])
    assert specials(tokenizer, "file") == (0, 1, 2, 3, 4)
    found = ordinary(tokenizer)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [*range(7, len(PIECES)), len(PIECES) + 1])
    with pytest.raises(UserError, match=r"^vocab.txt: lacks \[MASK\]; expected \[PAD\] \[UNK\]"):
        specials(wordpiece([*SPECIAL[:4], "a"]), "vocab.txt")


def test_ids_with_gaps_need_a_tokenizer_json(tmp_path):
    gaps = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 2}, unk_token="[UNK]"))
    write_tokenizer(tmp_path, gaps)
    assert not (tmp_path / "vocab.txt").exists()
    assert read_tokenizer(tmp_path).get_vocab() == {"[UNK]": 0, "a": 2}


def test_a_word_has_a_hundred_characters_at_most():
    long, longer = encode(TOKENIZERS["lower"], ["a" * 100, "a" * 101])
    assert len(long.ids) == 100
    assert longer.ids.tolist() == [1]


CORPUS = [
    "".join(random.Random(i).choices("abcdeéΣ中文国人, 0123", k=40)) + " the cat thing" * (i % 3)
    for i in range(120)
]
TRAIN = """
import json, sys
from experiments.lib.tokenizer import train_tokenizer
texts = json.load(sys.stdin)
print(json.dumps(train_tokenizer(texts, 120).get_vocab()))
"""


def test_training_repeats_itself_in_other_processes_and_with_other_threads():
    expected = train_tokenizer(CORPUS, 120).get_vocab()
    assert len(expected) == 120
    again = train_tokenizer(iter(CORPUS), 120).get_vocab()  # the hash maps have other seeds
    assert again == expected
    found = subprocess.run(
        [sys.executable, "-c", TRAIN],
        env={**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"},
        input=json.dumps(CORPUS), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(found.stdout) == expected


def test_training_gives_the_frequent_pieces_and_all_characters():
    tokenizer = train_tokenizer([*CORPUS, "half \ud800 of a pair"], 120)
    ids = tokenizer.get_vocab()
    assert sorted(ids, key=ids.__getitem__)[:7] == [*SPECIAL, ",", "0"]
    assert {"the", "cat", "thing", "中", "##e", "σ"} <= ids.keys()
    assert not {"##中", "##,", "é", "Σ", "\ufffd"} & ids.keys()
    assert ids["[UNK]"] not in encode(tokenizer, [" ".join(CORPUS)])[0].ids
    cased = train_tokenizer(CORPUS, 120, lower=False).get_vocab()
    assert {"é", "##Σ"} <= cased.keys()


def test_training_keeps_the_most_frequent_characters():
    common, rare = "天地人", [chr(0x4E00 + i) for i in range(20)]
    texts = [common * 20_000, *rare, "cat hat " * 500]
    found = train_tokenizer(texts, 60).get_vocab().keys()
    assert set(common) <= found
    assert "cat" in found  # the rare ones do not take all the room
    assert len(found & set(rare)) == 0
    assert set(rare) <= train_tokenizer(texts, 5000).get_vocab().keys()


def test_training_keeps_to_the_size_and_joins_no_pair_that_occurs_once():
    texts = [chr(0x4E00 + i) * (i + 1) for i in range(200)]
    assert len(train_tokenizer(texts, 60).get_vocab()) == 60
    found = train_tokenizer(["a b c d e f g h ab ab ac"], 100).get_vocab().keys()
    assert "ab" in found
    assert "ac" not in found


def test_training_refuses_too_little():
    with pytest.raises(UserError, match="a vocabulary of 15 pieces; expected at least 16"):
        train_tokenizer(CORPUS, 15)
    for texts in ([], [""], ["a b"]):
        with pytest.raises(UserError, match=r"the texts give \d pieces, 5 of them special; exp"):
            train_tokenizer(texts, 100)


def test_words_begin():
    tokenizer = TOKENIZERS["lower"]
    found, empty = encode(tokenizer, ["Thising [MASK]is don't 中文", " "])
    assert [tokenizer.id_to_token(i) for i in found.ids] == [
        "this", "##ing", "[MASK]", "is", "d", "##o", "##n", "'", "t", "中", "文"
    ]  # fmt: skip
    np.testing.assert_array_equal(found.begins, [1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1])
    assert (found.ids.dtype, found.begins.dtype) == (np.int32, bool)
    assert (empty.ids.shape, empty.begins.shape) == ((0,), (0,))
    assert (empty.ids.dtype, empty.begins.dtype) == (np.int32, bool)


def test_words_of_a_segmenter():
    tokenizer = TOKENIZERS["lower"]
    words = ["中国", "人", "is", " ", "中", "文", "", "\x10\ud800", "国 中"]
    (found,) = encode(tokenizer, ["".join(words)], lambda text: words)
    assert [tokenizer.id_to_token(i) for i in found.ids] == [*"中国人", "is", *"中文国中"]
    np.testing.assert_array_equal(found.begins, [1, 0, 1, 1, 1, 1, 1, 0])
    assert encode(tokenizer, [""], str.split)[0].begins.shape == (0,)
    with pytest.raises(ValueError, match="segment gives other words than '中 文'"):
        encode(tokenizer, ["中 文"], str.split)


def test_many_texts_come_back_in_order():
    lengths = [*range(50), 0, 0, 7]
    texts = ["the " * n + " " * 50_000 for n in lengths]
    assert sum(map(len, texts)) > 2 * 2**20  # several batches
    found = encode(TOKENIZERS["lower"], iter(texts))
    assert [len(x.ids) for x in found] == lengths


# (text, the characters that each piece covers); the pieces themselves depend on the vocabulary.
SPANS = [
    ("T\x10his is", [(0, 5), (6, 8)]),
    ("アリババ", [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ("rΣ", [(0, 1), (1, 2)]),
    ("x 中文", [(0, 1), (2, 3), (3, 4)]),
    ("👩\u200d👩\u200d👧 👍🏽 is", [(0, 5), (6, 8), (9, 11)]),
    ("😀\ufe0f is", [(0, 2), (3, 5)]),
    ("\ud800is \udc00", [(1, 3)]),
    ("\u0301is \u0301", [(1, 3)]),
    ("is \u0301is\u0301\u0308", [(0, 2), (4, 8)]),
    ("한", [(0, 1), (0, 1), (0, 1)]),
    ("한\u0301.", [(0, 2), (0, 2), (0, 2), (2, 3)]),
    ("", []),
]


def texts_of(text, spans):
    return [text[begin:end] for begin, end in spans]


@pytest.mark.parametrize(("text", "expected"), SPANS)
def test_characters_of_pieces(text, expected):
    pieces, spans = offsets(TOKENIZERS["lower"], text)
    assert (spans.dtype, spans.shape) == (np.int32, (len(pieces), 2))
    assert [tuple(span) for span in spans.tolist()] == expected


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_belong_to_their_letters(form):
    words = [unicodedata.normalize(form, word) for word in ("Café", "naïve", "é")]
    pieces, spans = offsets(TOKENIZERS["lower"], " ".join(words))
    assert pieces == ["cafe", "naive", "e"]
    assert texts_of(" ".join(words), spans) == words


@KINDS
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="e\u0301\u0301 \u0301")
def test_pieces_are_what_their_characters_become(kind, text):
    tokenizer = TOKENIZERS[kind]
    pieces, spans = offsets(tokenizer, text)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert ((spans >= 0) & (spans <= len(text))).all()
    assert (np.diff(spans, axis=0) >= 0).all()
    assert ((spans[1:, 0] >= spans[:-1, 1]) | (spans[1:] == spans[:-1]).all(1)).all()
    made: dict = {}
    for piece, span in zip(pieces, map(tuple, spans.tolist()), strict=True):
        made.setdefault(span, []).append(piece.removeprefix("##"))
    for (begin, end), parts in made.items():
        slice_ = text[begin:end].encode(errors="replace").decode()  # of half a pair: "?"
        if "[UNK]" not in parts and parts[0] not in SPECIAL:
            assert "".join(parts) == tokenizer.normalizer.normalize_str(slice_).strip()
    missed = np.ones(len(text), bool)
    for begin, end in spans:
        missed[begin:end] = False
    left = "".join(np.array(list(text), object)[missed]).encode(errors="ignore").decode()
    assert not tokenizer.normalizer.normalize_str(left).strip()  # all that counts is covered


@KINDS
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_encode_agrees_with_the_package_and_with_its_words(kind, texts):
    tokenizer = TOKENIZERS[kind]
    for text, found in zip(texts, encode(tokenizer, texts), strict=True):
        clean = "".join("\ufffd" if "\ud800" <= x <= "\udfff" else x for x in text)
        expected = tokenizer.encode(clean, add_special_tokens=False)
        assert found.ids.tolist() == expected.ids
        assert found.begins[:1].all()
        assert len(offsets(tokenizer, text)[0]) == len(found.ids) == len(found.begins)
        continues = [piece.startswith("##") for piece in expected.tokens]
        np.testing.assert_array_equal(found.begins, ~np.array(continues, bool))
        spaced = text.replace("\t", " ").replace("\n", " ").replace("\r", " ")
        words = encode(tokenizer, spaced.split(" "))
        np.testing.assert_array_equal(np.concatenate([x.ids for x in words]), found.ids)
        np.testing.assert_array_equal(np.concatenate([x.begins for x in words]), found.begins)


REAL = {
    "models/bert_tiny_mlm": [
        ("Café naïve", ["cafe", "naive"], ["Café", "naïve"]),
        ("T\x10his is", ["this", "is"], ["T\x10his", "is"]),
        ("アリババ", ["ア", "##リ", "##ハ", "##ハ"], ["ア", "リ", "バ", "バ"]),
        ("rΣ", ["r", "##σ"], ["r", "Σ"]),
        ("👩\u200d👧 ok", ["[UNK]", "ok"], ["👩\u200d👧", "ok"]),
        ("기어", ["ᄀ", "##ᅵ", "##ᄋ", "##ᅥ"], ["기", "기", "어", "어"]),
    ],
    "text/zh/bert_base_chinese_vocab.txt": [
        ("中文abc中", ["中", "文", "abc", "中"], ["中", "文", "abc", "中"]),
        ("Café 👍🏽", ["cafe", "[UNK]"], ["Café", "👍🏽"]),
        ("rΣ", ["r", "##σ"], ["r", "Σ"]),
    ],
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_real_vocabularies(real_data, name, form):
    tokenizer = read_tokenizer(real_data / name)
    for text, pieces, parts in REAL[name]:
        if form == "NFD" and not text.startswith("Caf"):
            continue
        given_text = unicodedata.normalize(form, text)
        found, spans = offsets(tokenizer, given_text)
        assert found == pieces
        assert texts_of(given_text, spans) == [
            unicodedata.normalize(form, part) if form == "NFD" else part for part in parts
        ]
    ids = specials(tokenizer, name)
    assert ids == (0, 100, 101, 102, 103)
    found = [tokenizer.id_to_token(i) for i in ordinary(tokenizer)]
    assert (
        len(found)
        == {30522: 30522 - 994 - 5, 21128: 21128 - 99 - 2 - 5}[tokenizer.get_vocab_size()]
    )
    assert not [x for x in found if x.startswith("[") and x != "["]


def fake_jieba(monkeypatch, parts):
    module = types.ModuleType("jieba")
    module.Tokenizer = lambda: types.SimpleNamespace(
        tmp_dir=None, initialize=lambda: None, cut=lambda text: iter(parts)
    )
    monkeypatch.setitem(sys.modules, "jieba", module)


def test_other_scripts_are_kept_together(monkeypatch):
    fake_jieba(
        monkeypatch, ["中国", "人", "na", "ï", "ve", " ", "п", "р", "и", ",", "中", "한", "국"]
    )
    assert list(chinese_words()("")) == ["中国", "人", "naïve", " ", "при", ",", "中", "한국"]
    fake_jieba(monkeypatch, [])
    assert list(chinese_words()("")) == []


def test_without_jieba(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match=r"^--segmenter jieba: is not installed; expected pip inst"):
        chinese_words()


def test_jieba_finds_words_and_says_nothing(capfd):
    pytest.importorskip("jieba", reason="the extra `chinese` is not installed")
    text = "我来到北京清华大学 naïve 3.14"
    words = list(chinese_words()(text))
    assert "".join(words) == text
    assert {"来到", "北京", "清华大学", "naïve", "3.14"} <= set(words)
    assert capfd.readouterr() == ("", "")


def test_transformers_reads_the_folder_alike(tmp_path):
    transformers = pytest.importorskip("transformers", reason="only to compare with; not needed")
    text = "The Café is 中文 [MASK]ing 😀 rΣ"
    for kind, tokenizer in TOKENIZERS.items():
        write_tokenizer(tmp_path / kind, tokenizer)
        other = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
        assert other(text)["input_ids"] == tokenizer.encode(text).ids


def test_transformers_is_not_needed():
    code = (
        "import sys; import experiments.lib.tokenizer;"
        "sys.exit(bool({'transformers', 'torch', 'jieba', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
