"""The flags of a text experiment: which corpus they open, and what is said."""

import importlib.metadata
import sys

import pytest

from experiments.lib.errors import UserError
from experiments.lib.sources.text import PiecesConfig, TextConfig


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A module with documentation strings, that can be imported."""
    (tmp_path / "toy_text.py").write_text('"""Five words and five words."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    return "toy_text"


def test_a_file(tmp_path, capsys):
    (tmp_path / "own.txt").write_text("a b\n\nb\n")
    (tmp_path / "labels").write_text("x\n\ny\n")
    config = TextConfig(
        workdir=str(tmp_path / "runs" / "one"),
        corpus=str(tmp_path / "own.txt"),
        labels=str(tmp_path / "labels"),
        min_count=1,
    )
    text = config.text()
    assert (text.name, text.words, text.labels.tolist()) == ("own", ("b", "a"), [0, -1, 1])
    (place,) = (tmp_path / "runs" / "corpora").iterdir()
    assert place.name.startswith("own-")
    assert capsys.readouterr().err == (
        "own: 1 of 3 lines are blank, the first is number 2: read as empty documents\n"
        "own: 3 documents, 3 known words, 2 of them different, 2 classes\n"
    )


def test_documentation_strings_where_there_is_no_file(tmp_path, monkeypatch, toy):
    monkeypatch.chdir(tmp_path)
    text = TextConfig(docstrings=f" {toy}, ,", min_count=2).text()
    assert (text.name, text.words) == ("docstrings", ("five", "words"))
    assert [p.name[:11] for p in (tmp_path / "runs" / "corpora").iterdir()] == ["docstrings-"]


def test_the_default_is_what_the_project_installs():
    config = TextConfig()
    assert (config.corpus, config.min_count) == ("", 5)
    assert config.docstrings == "stdlib,numpy,sklearn,jax,flax,optax"


def test_flags_that_are_refused(tmp_path):
    with pytest.raises(UserError, match="--min-count 0: expected an integer of at least 1"):
        TextConfig(min_count=0)
    with pytest.raises(UserError, match=r"--corpus s3://b/text.txt: expected a folder"):
        TextConfig(corpus="s3://b/text.txt")
    with pytest.raises(UserError, match="--labels x: needs --corpus, the file of the documents"):
        TextConfig(workdir=str(tmp_path / "run"), labels="x").text()
    with pytest.raises(UserError, match="--docstrings , : expected names of packages separated by"):
        TextConfig(workdir=str(tmp_path / "run"), docstrings=", ").text()


def test_word_pieces_of_a_file(tmp_path, capsys):
    (tmp_path / "own.txt").write_text("the king\n\nthe ring\n" * 5)
    config = PiecesConfig(
        workdir=str(tmp_path / "runs" / "one"), corpus=str(tmp_path / "own.txt"), vocab_size=100
    )
    learned = config.pieces()
    size = learned.tokenizer.get_vocab_size()
    assert [p.name[:11] for p in (tmp_path / "runs" / "corpora").iterdir()] == ["own-pieces-"]
    assert capsys.readouterr().err == (
        "own: 5 of 15 lines are blank, the first is number 2: read as empty documents\n"
        f"own: 15 documents, {len(learned.tokens)} pieces of a vocabulary of {size}\n"
    )
    for name, last in (("given", "the"), ("flag", "king")):
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", last]
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text("\n".join(pieces))
    # That of an experiment, which --vocab takes the place of.
    for flag, last in (("", "the"), (str(tmp_path / "flag"), "king")):
        given = PiecesConfig(workdir=config.workdir, corpus=config.corpus, vocab=flag)
        vocab = given.pieces(str(tmp_path / "given")).tokenizer.get_vocab()
        assert (vocab[last], len(vocab)) == (5, 6)


def test_word_pieces_of_documentation_strings(tmp_path, monkeypatch, toy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwords")
    found = PiecesConfig(docstrings=toy, vocab="vocab.txt").pieces()
    assert (found.name, found.tokens.tolist()) == ("docstrings", [1, 5, 1, 1, 5, 1])


def test_the_words_of_jieba_and_its_version(tmp_path, monkeypatch):
    pytest.importorskip("jieba")
    (tmp_path / "own.txt").write_text(
        "我们喜欢机器学习 也喜欢天气预报和中国历史\n" * 20, encoding="utf-8"
    )
    config = {"workdir": str(tmp_path / "one"), "corpus": str(tmp_path / "own.txt")}
    single, words = (PiecesConfig(**config, segmenter=name).pieces() for name in ("none", "jieba"))
    assert single.begins.all()
    assert 0 < words.begins.sum() < len(words.begins)
    assert len(list((tmp_path / "corpora").iterdir())) == 2
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99" if name == "jieba" else version(name)
    )
    PiecesConfig(**config, segmenter="jieba").pieces()
    assert len(list((tmp_path / "corpora").iterdir())) == 3
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(
        UserError, match="--segmenter jieba: is not installed; expected pip install"
    ):
        PiecesConfig(**config, segmenter="jieba").pieces()
