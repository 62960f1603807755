"""A corpus: against a plain transcription, whatever is in the file and however it is read."""

import collections
import errno
import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.lib.batches import test_batches
from experiments.lib.errors import UserError
from experiments.lib.sources import lines, numbering
from experiments.lib.sources.corpus import Blocks, encode, load_corpus, load_docstrings

_FEW = settings(max_examples=60, deadline=None)


@pytest.fixture
def load(tmp_path):
    """load(content, min_count, name, labels): the corpus of a file with this content."""

    def load(content, min_count=1, name="text.txt", labels=None):
        path, labels_path = tmp_path / name, tmp_path / "labels.txt"
        path.write_bytes(content)
        if labels is not None:
            labels_path.write_bytes(labels)
        chosen = "" if labels is None else str(labels_path)
        return load_corpus(str(path), tmp_path / "corpora", min_count, chosen)

    return load


def _documents(corpus):
    places = zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    return [[corpus.words[t] for t in corpus.tokens[a:b]] for a, b in places]


def test_by_hand(load):
    corpus = load(b"b a b\nc  B\ta b\n\nrare\na c\n", min_count=2)
    assert corpus.name == "text"
    assert corpus.words == ("a", "b", "c")  # equally frequent words in order
    assert corpus.counts.tolist() == [3, 3, 2]
    assert corpus.tokens.tolist() == [1, 0, 1, 2, 0, 1, 0, 2]
    assert corpus.starts.tolist() == [0, 3, 6, 6, 6, 8]
    assert isinstance(corpus.tokens, np.memmap)
    dtypes = [x.dtype for x in (corpus.counts, corpus.tokens, corpus.starts)]
    assert dtypes == [np.int64, np.int32, np.int64]
    assert (corpus.labels, corpus.classes) == (None, ())
    assert corpus.notes == (
        "1 of 5 lines are blank, the first is number 3: read as empty documents",
        "1 of 5 lines have no word that occurs 2 times, the first is number 4: read as empty"
        " documents",
    )


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"a b\nc", [["a", "b"], ["c"]]),
        (b"a b\nc\n", [["a", "b"], ["c"]]),
        (b"a b\r\nc\r\n", [["a", "b"], ["c"]]),
        (b"\xef\xbb\xbfa b\nc\n", [["a", "b"], ["c"]]),
        (b"\n\na b\n \nc\n\n", [[], [], ["a", "b"], [], ["c"], []]),
        (b"a b ", [["a", "b"]]),
        (b"a b\n ", [["a", "b"], []]),
        (b"a\vb\fc\td\re\vf\fg\rh\vi\fj\rk", [list("abcdefghijk")]),
        ("a\u00a0b c\u2028d\x1ce\x85 f".encode(), [["a\u00a0b", "c\u2028d\x1ce\x85", "f"]]),
        ("猫 犬\n猫".encode(), [["猫", "犬"], ["猫"]]),
        (b"a\0 b", [["a\0", "b"]]),
    ],
)
@pytest.mark.parametrize("chunk", [3, 7, 2**20])
def test_ends_of_words_and_lines(load, monkeypatch, content, documents, chunk):
    monkeypatch.setattr(lines, "_CHUNK", chunk)
    monkeypatch.setattr(lines, "_LONGEST", 12)
    assert _documents(load(content)) == documents


def _expected(content, min_count):
    """Words, counts and documents, in a few plain lines; and how many are bad, blank, unknown."""
    rows = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows = rows[:-1] if rows[-1] == b"" else rows
    documents, bad, blank = [], 0, 0
    for row in rows:
        try:
            row.decode()
            documents.append([word.decode() for word in row.split()])
            blank += not documents[-1]
        except UnicodeDecodeError:
            documents.append([])
            bad += 1
    counts = collections.Counter(word for document in documents for word in document)
    words = sorted((w for w in counts if counts[w] >= min_count), key=lambda w: (-counts[w], w))
    kept = [[w for w in document if w in words] for document in documents]
    return words, [counts[w] for w in words], kept, (bad, blank, kept.count([]) - bad - blank)


_PIECES = st.sampled_from(
    [b"a", b"b", b"cc", b"ddddddddd", b" ", b" ", b"\n", b"\n", b"\r\n", b"\t", b"\xc3\xa9",
     "猫".encode(), b"\xff", b"\xc3", b"\xef\xbb\xbf"]
)  # fmt: skip


@_FEW
@given(st.lists(_PIECES, max_size=60), st.integers(1, 3), st.integers(3, 9))
def test_any_file(tmp_path_factory, pieces, min_count, chunk):
    content, folder = b"".join(pieces), tmp_path_factory.mktemp("any")
    words, counts, documents, empty = _expected(content, min_count)
    (folder / "text").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        if len(words) < 2:
            with pytest.raises(UserError):
                load_corpus(folder / "text", folder, min_count)
            return
        corpus = load_corpus(folder / "text", folder, min_count)
    assert corpus.words == tuple(words)
    assert corpus.counts.tolist() == counts
    assert _documents(corpus) == documents
    notes = [int(note.split()[0]) for note in corpus.notes]
    assert notes == [count for count in empty if count]


@_FEW
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=5), min_size=1), st.integers(1, 4))
def test_json_lines_as_plain_lines(tmp_path_factory, documents, block):
    documents = [["a", "b"], *documents]
    folder = tmp_path_factory.mktemp("any")
    rows = [json.dumps({"text": " ".join(document)}) for document in documents]
    (folder / "x.jsonl").write_text("\n".join(rows))
    (folder / "x.txt").write_text("".join(" ".join(document) + "\n" for document in documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_WORDS", block)
        corpora = [load_corpus(folder / name, folder, 1) for name in ("x.jsonl", "x.txt")]
    for one, other in zip(*corpora, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_long_line(load, monkeypatch):
    monkeypatch.setattr(lines, "_CHUNK", 1000)
    common = ["common"] * 15_000
    corpus = load(" ".join([*common, "late", *common, "\nlate"]).encode())
    assert corpus.starts.tolist() == [0, 30_001, 30_002]
    assert np.flatnonzero(corpus.tokens == corpus.words.index("late")).tolist() == [15_000, 30_001]


def test_a_long_line_that_is_bad_at_its_end_counts_nowhere(load, monkeypatch):
    monkeypatch.setattr(lines, "_CHUNK", 7)
    corpus = load(b"a b\n" + b"a x " * 9 + b"\xff" + b" a" * 9 + b" \xff\nb b\n")
    assert (corpus.words, corpus.counts.tolist()) == (("b", "a"), [3, 1])
    assert corpus.starts.tolist() == [0, 2, 2, 4]
    assert corpus.notes == (
        "1 of 3 lines are not UTF-8, the first is number 2: read as empty documents",
    )


def test_json_lines(load):
    rows = [
        b'\xef\xbb\xbf{"text": "a b\\n\\tA", "label": 10}',
        b"",
        b'{"text": "caf\\u00e9 a"}',
        b'{"text": "\xff", "label": 3}',
        b'{"label": " 9 ", "text": "", "more": [1]}\r',
        b'{"text": "b", "label": null}',
    ]
    corpus = load(b"\n".join(rows), name="text.jsonl")
    assert _documents(corpus) == [["a", "b", "A"], [], ["café", "a"], [], [], ["b"]]
    assert corpus.classes == ("9", "10")  # numbers, not texts
    assert corpus.labels.tolist() == [1, -1, -1, -1, 0, -1]
    assert corpus.labels.dtype == np.int32
    assert [note.split(",")[0] for note in corpus.notes] == [
        "1 of 6 lines are not UTF-8",
        "2 of 6 lines are blank",
    ]
    other = load(b"\n".join(rows), name="text.jsonl", labels=b"u\nu\nv\nv\nv\nv\n")
    assert other.labels.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (b"dog\ncat\ndog\n", ("cat", "dog"), [1, 0, 1]),
        (b"10\r\n9\r\n-1", ("-1", "9", "10"), [2, 1, 0]),
        (b"10\n9\nx", ("10", "9", "x"), [0, 1, 2]),
        ("zwei W\u00f6rter\n\n b \n".encode(), ("b", "zwei W\u00f6rter"), [1, -1, 0]),
    ],
)
def test_labels(load, labels, classes, expected):
    corpus = load(b"a\nb\nc\n", labels=labels)
    assert corpus.classes == classes
    assert corpus.labels.tolist() == expected


def test_labels_that_are_all_blank_are_none(load):
    assert load(b"a\nb", labels=b"\n\n").labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "text.txt: is empty; expected a file with a document on each line"),
        (b"\n \n", "text.txt: no word occurs 2 times; expected two different words or more, or a"),
        (b"\xef\xbb\xbf", "text.txt: no word occurs 2 times; expected"),
        (b"a b c\n", "text.txt: no word occurs 2 times; expected"),
        (b"a b a", "text.txt: 'a' alone occurs 2 times; expected two different words or more"),
        (b"\xe9 a a\nb b\nb \xe9", r"'b' alone occurs 2 times \(2 lines are not UTF-8\); exp"),
        ("a b\n".encode("utf-16"), r"no word occurs 2 times \(1 lines are not UTF-8\); exp"),
        (b"a a b b " + b"x" * 3_000_000, "line 1 has a word of more than 1048576 bytes; expected"),
        (b"a a\nb b\n" + b"x" * 1_048_577, "line 3 has a word of more than 1048576 bytes"),
    ],
)
def test_files_that_are_refused(load, tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        load(content, min_count=2)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("corpora/*"))


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "a"',
        "3",
        "[]",
        '"text"',
        "{}",
        '{"text": 3}',
        '{"text": null}',
        '{"text": "a", "label": 1.5}',
        '{"text": "a", "label": true}',
        '{"text": "a", "label": ["b"]}',
        '{"text": "\\ud800"}',
        '{"text": "a", "label": "\\ud800"}',
        '{"text": "a", "n": ' + "[" * 100_000 + "}",
        '{"text": "a", "n": ' + "9" * 5000 + "}",
        "words that are no JSON",
    ],
)
def test_json_lines_that_are_refused(load, row):
    shown = row if len(row) < 60 else row[:57] + "..."
    with pytest.raises(UserError) as error:
        load(b'{"text": "a b"}\n\n' + row.encode(), name="text.jsonl")
    assert str(error.value).endswith(
        f'text.jsonl: line 3 is {shown}; expected {{"text": "...", "label": "..."}}, the label'
        " text, an integer or left out"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"", "labels.txt: is empty; expected"),
        (b"x\ny", r"labels.txt: has 2 labels; expected one a line for the 3 lines of .*text.txt"),
        (b"x\ny\nz\n\n", "labels.txt: has 4 labels; expected one a line for the 3 lines"),
        (b"x\n\xff\nz", "labels.txt: line 2 is not UTF-8; expected a label"),
    ],
)
def test_labels_that_are_refused(load, labels, message):
    with pytest.raises(UserError, match=message):
        load(b"a\nb\nc\n", labels=labels)


def test_places_that_are_refused(load, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"missing.txt: No such file.*; expected a file with a doc"):
        load_corpus(tmp_path / "missing.txt", tmp_path, 1)
    with pytest.raises(UserError, match=r": is a folder; expected a file with a document on each"):
        load_corpus(tmp_path, tmp_path, 1)
    with pytest.raises(UserError, match=r"--min-count 0: expected an integer of at least 1"):
        load(b"a b", min_count=0)
    (tmp_path / "corpora").write_text("in the way")
    with pytest.raises(UserError, match=r"corpora: File exists; expected a folder"):
        load(b"a b")
    (tmp_path / "corpora").unlink()

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", refuse)
    with pytest.raises(UserError, match=r"text-\w+: cannot be written \(No space left on device\)"):
        load(b"a b")
    assert not list((tmp_path / "corpora").iterdir())


def test_a_file_that_may_not_be_read(load, monkeypatch):
    real = pathlib.Path.open

    def refuse(path, *args, **kwargs):
        if path.name == "text.txt" and args == ("rb",):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(UserError, match=r"text.txt: Permission denied; expected a file that can"):
        load(b"a b")


def test_a_file_that_changes_while_it_is_read(load, tmp_path, monkeypatch):
    count = numbering._counted

    def then_change(*args):
        counted = count(*args)
        (tmp_path / "text.txt").write_bytes(b"a b a")
        return counted

    monkeypatch.setattr(numbering, "_counted", then_change)
    with pytest.raises(UserError, match=r"text.txt: changed while it was read; expected one that"):
        load(b"a b")


@pytest.fixture
def written(monkeypatch):
    """The number of times that a corpus was made."""
    made, write = [], numbering.write

    def counted(*args):
        made.append(args)
        write(*args)

    monkeypatch.setattr("experiments.lib.sources.corpus.write", counted)
    return made


def _same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_made_once(load, tmp_path, written, capsys):
    first = load(b"a b\n\n", labels=b"x\ny\n")
    path, labels = tmp_path / "text.txt", tmp_path / "labels.txt"
    _same(first, load_corpus(path, tmp_path / "corpora", 1, str(labels)))
    assert len(written) == 1
    (place,) = (tmp_path / "corpora").iterdir()
    assert place.name.startswith("text-")
    assert sorted(p.name for p in place.iterdir()) == ["index.npz", "tokens.int32"]
    load_corpus(path, tmp_path / "corpora", 1)
    os.utime(path, (1, 1))
    load_corpus(path, tmp_path / "corpora", 1)
    os.utime(labels, (1, 1))
    load_corpus(path, tmp_path / "corpora", 1, str(labels))
    with pytest.raises(UserError):
        load_corpus(path, tmp_path / "corpora", 2)
    assert len(written) == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["index.npz", "tokens.int32"])
def test_damaged_files_are_made_again(load, tmp_path, written, capsys, name):
    whole = load(b"a b c a\nb", labels=b"x\ny\n")
    whole = whole._replace(tokens=whole.tokens.tolist())
    places = tmp_path / "text.txt", tmp_path / "corpora", 1, str(tmp_path / "labels.txt")
    (folder,) = (tmp_path / "corpora").iterdir()
    content = (folder / name).read_bytes()
    parts = [b"", content[:9], content[:-4], content[: len(content) // 2]]
    # An archive may have anything before it.
    for damaged in parts if name == "index.npz" else [*parts, content * 2]:
        (folder / name).write_bytes(damaged)
        again = load_corpus(*places)
        _same(whole, again)
        assert capsys.readouterr().err == f"warning: {folder} is damaged; it is made again\n"
    (folder / name).unlink()
    _same(whole, load_corpus(*places))
    assert [p.name for p in (tmp_path / "corpora").iterdir()] == [folder.name]
    assert len(written) == (6 if name == "index.npz" else 7)  # each time


def test_a_folder_that_another_process_does_not_share(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    (tmp_path / "text.txt").write_text("a b")
    with pytest.raises(
        UserError, match=r"text-\w+: missing or damaged; expected a folder that all"
    ):
        load_corpus(tmp_path / "text.txt", tmp_path / "corpora", 1)


def test_names_that_are_no_text_or_long(tmp_path):
    for name in (os.fsdecode(b"\xff.txt"), "x" * 200 + ".txt", "a-b.txt"):
        (tmp_path / name).write_text("a b")
        corpus = load_corpus(tmp_path / name, tmp_path / "corpora", 1)
        assert corpus.name == name.removesuffix(".txt").replace("\udcff", "_")[:50]


def test_new_documents(load):
    corpus = load(b"b a b\nc\n")
    tokens, starts = encode(corpus.words, ["a x  b", "", "x y", "\ud800 a\nc", "B"])
    assert (tokens.dtype, starts.dtype) == (np.int32, np.int64)
    assert tokens.tolist() == [1, 0, 1, 2]
    assert starts.tolist() == [0, 2, 2, 2, 4, 4]
    tokens, starts = encode(corpus.words, [])
    assert (tokens.tolist(), starts.tolist()) == ([], [0])


def test_the_documents_themselves_have_the_same_numbers(load):
    content = b"b a b\n\nrare c\xc2\xa0c\nc c\n"
    corpus = load(content, min_count=2)
    tokens, starts = encode(corpus.words, content.decode().split("\n")[:-1])
    np.testing.assert_array_equal(tokens, corpus.tokens)
    np.testing.assert_array_equal(starts, corpus.starts)


@pytest.mark.parametrize("length", [1, 3, 4, 100])
def test_blocks(load, length):
    corpus = load(b"\na b c\n\n\nd\nrare e\nd e a b c b a\n\n", min_count=2)
    stream = [(t, d) for d, row in enumerate(_documents(corpus)) for t in row]
    blocks = Blocks(corpus, length)
    assert len(blocks) == -(-len(stream) // length)
    batch = blocks[np.arange(len(blocks))]
    assert {name: column.dtype for name, column in batch.items()} == {
        "tokens": np.int32,
        "documents": np.int32,
    }
    padded = stream + [("", -1)] * (len(blocks) * length - len(stream))
    assert batch["tokens"].shape == batch["documents"].shape == (len(blocks), length)
    found = [corpus.words[t] if t >= 0 else "" for t in batch["tokens"].ravel()]
    assert list(zip(found, batch["documents"].ravel().tolist(), strict=True)) == padded
    some = np.array([[len(blocks) - 1, 0]])
    np.testing.assert_array_equal(blocks[some]["tokens"], batch["tokens"][some])
    np.testing.assert_array_equal(blocks[0]["documents"], batch["documents"][0])
    for bad in (-1, len(blocks), np.array([0, len(blocks)])):
        with pytest.raises(IndexError, match=f"expected 0 to {len(blocks) - 1}"):
            blocks[bad]


def test_blocks_are_a_split(load):
    blocks = Blocks(load(b"a b c d e f g\n"), 2)
    batches = list(test_batches(blocks, 3))
    assert [batch["tokens"].shape for batch in batches] == [(3, 2), (3, 2)]
    assert [batch["valid"].tolist() for batch in batches] == [[True] * 3, [True, False, False]]


def test_documentation_strings(tmp_path, monkeypatch, written):
    (tmp_path / "toy_text.py").write_text(
        '"""Rare and words and words."""\ndef f():\n    """Here are only words that vary."""\n'
        'def g():\n    """None of this has them."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    corpora = [load_docstrings(("toy_text",), tmp_path / "corpora", 2) for _ in range(2)]
    _same(*corpora)
    assert len(written) == 1
    corpus = corpora[0]
    assert (corpus.name, corpus.words, corpus.classes) == (
        "docstrings",
        ("words", "and"),
        ("toy_text",),
    )
    assert _documents(corpus) == [["and", "words", "and", "words"], ["words"], []]
    assert corpus.labels.tolist() == [0, 0, 0]
    assert corpus.notes == (
        "1 of 3 texts have no word that occurs 2 times, the first is number 3: read as empty"
        " documents",
    )
    with pytest.raises(UserError, match="--docstrings toy_text: no word occurs 9 times; expected"):
        load_docstrings(("toy_text",), tmp_path / "corpora", 9)
