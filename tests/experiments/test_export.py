"""A run as a folder for Hugging Face's transformers, and back."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import bert_pretraining, export, nice
from experiments.lib import runs, weights
from experiments.lib.errors import UserError
from experiments.lib.loop import train
from experiments.lib.tokenizer import read_tokenizer
from experiments.methods import language

TEXT = "the king of the ring sings, and nothing brings the king a thing\n" * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step with a small model."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "text.txt").write_text(TEXT)
    config = dataclasses.replace(
        bert_pretraining.SMOKE,
        corpus=str(folder / "text.txt"),
        vocab_size=100,
        workdir=str(folder / "run"),
        eval_every=0,
        steps=2,
        objective="gpt",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(language.SIZES, "tiny", {"depth": 2, "width": 8, "heads": 2, "hidden": 12})
        train("bert_pretraining", config, *bert_pretraining.build(config))
        yield folder / "run"


def test_weights_and_vocabulary_come_back(run, tmp_path, capsys):
    export.main(export.Config(run, tmp_path / "out"))
    said = capsys.readouterr().err
    assert f"bert_pretraining, step 2, in {tmp_path / 'out'}" in said
    assert "is_decoder=True" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"
    ]  # fmt: skip
    loaded, found = runs.load(run), weights.read(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, found.params, loaded.state.params)
    assert found.kind == "bert"
    assert found.ignored == ()
    ours, theirs = loaded.data.pieces.tokenizer, read_tokenizer(tmp_path / "out")
    assert theirs.encode(TEXT).ids == ours.encode(TEXT).ids
    assert theirs.get_vocab() == ours.get_vocab()
    # The folder's numbers are those of the model.
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] == len(found.params["bias"]) == ours.get_vocab_size()
    assert config["num_hidden_layers"] == 2
    # A run may begin with the folder: without --vocab it brings its vocabulary, too.
    init = dataclasses.replace(loaded.config, init=str(tmp_path / "out"), objective="mlm")
    data, method = bert_pretraining.build(init)
    assert data.pieces.tokenizer.get_vocab() == ours.get_vocab()
    state = jax.jit(method.init)(jax.random.key(1), data.train[np.arange(2)])
    jax.tree.map(np.testing.assert_array_equal, state.params, loaded.state.params)


def test_a_corpus_that_gives_another_vocabulary_is_refused(run, tmp_path):
    """Its pieces have the same numbers, and the parameters belong to the old ones."""
    (tmp_path / "text.txt").write_text(TEXT.translate(str.maketrans("kg", "gk")))
    with pytest.raises(UserError, match="vocabulary") as error:
        runs.load(run, corpus=str(tmp_path / "text.txt"))
    assert "\n" not in str(error.value)


def test_other_runs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected the folder of a run"):
        export.main(export.Config(tmp_path, tmp_path / "out"))
    other = SimpleNamespace(name="nice", config=nice.SMOKE)
    monkeypatch.setattr(runs, "load", lambda *_: other)
    with pytest.raises(UserError, match="a run of nice; expected one of bert_pretraining"):
        export.main(export.Config(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
