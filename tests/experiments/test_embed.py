"""Vectors of a run, and of documents that it has not seen."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import embed, spherical_embedding
from experiments.lib import loop, runs
from experiments.lib.errors import UserError

WORDS = ["sun moon star sky", "ship sea wave wind"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on two kinds of documents, which have no word in common."""
    folder = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(0)
    kinds = [line.split() for line in WORDS]
    lines = [" ".join(rng.choice(kinds[i % 2], 20)) for i in range(60)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    (folder / "labels.txt").write_text("0\n1\n" * 30)
    config = dataclasses.replace(
        spherical_embedding.SMOKE,
        corpus=str(folder / "text.txt"),
        labels=str(folder / "labels.txt"),
        steps=150,
        batch_size=16,
        sample=1.0,
        workdir=str(folder / "run"),
        eval_every=0,
    )
    numbers = loop.train("spherical_embedding", config, *spherical_embedding.build(config))[
        "metrics"
    ]
    return folder, numbers


def test_kinds_of_documents_are_told_apart(trained):
    assert trained[1]["knn_f1"] == 1
    assert trained[1]["spherical_nmi"] == pytest.approx(1)


def test_new_documents_lie_near_those_of_their_kind(trained, tmp_path):
    folder, _ = trained
    new = tmp_path / "new.txt"
    new.write_text("moon moon star\nunknown words\n\nsea ship unknown wind\n")
    embed.main(embed.Config(folder / "run", out=tmp_path / "out", documents=new))
    with np.load(tmp_path / "out" / "new.npz") as file:
        vectors, known = file["document_vectors"], file["known"]
    assert known.tolist() == [True, False, False, True]
    assert np.isnan(vectors[1:3]).all()
    with np.load(tmp_path / "out" / "vectors.npz") as file:
        words, trained_documents = list(file["words"]), file["document_vectors"]
        of_words = file["word_vectors"]
    cosines = trained_documents @ vectors[[0, 3]].T
    first, second = cosines[0::2].mean(axis=0), cosines[1::2].mean(axis=0)
    assert first[0] > second[0] + 0.15
    assert second[1] > first[1] + 0.15
    rows = (tmp_path / "out" / "words.txt").read_text().splitlines()
    assert rows[0] == "8 8"
    first = rows[1].split()
    assert first[0] == words[0]
    np.testing.assert_allclose(np.float32(first[1:]), of_words[0], atol=1e-6)


def test_documents_without_any_known_word(trained):
    run = runs.load(trained[0] / "run")
    assert np.isnan(embed.infer(run, ["nothing", ""])).all()


def test_another_kind_of_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a run"):
        embed.main(embed.Config(tmp_path, out=tmp_path / "out"))


def test_a_corpus_without_labels_draws_its_map_and_one_without_others_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(WORDS * 5) + "\n")
    (tmp_path / "labels.txt").write_text("0\n1\n" * 5)
    config = dataclasses.replace(
        spherical_embedding.SMOKE, corpus=str(tmp_path / "text.txt"), workdir=str(tmp_path / "run")
    )
    data, method = spherical_embedding.build(config)
    batch = data.train[np.arange(1)]
    drawn = method.pictures(method.init(jax.random.key(0), batch), batch, jax.random.key(0))
    assert drawn["documents"].ndim == 3
    labelled = dataclasses.replace(config, labels=str(tmp_path / "labels.txt"), known=10)
    with pytest.raises(UserError, match="--known 10: text has 10 documents; expected"):
        spherical_embedding.build(labelled)
