"""The benchmark of JoSE measures what it says."""

import dataclasses

import numpy as np
import pytest

from benchmarks import spherical
from experiments import spherical_embedding
from experiments.lib.sources.corpus import load_corpus

LINES = ["sun moon star sky sun", "ship sea wave wind", "moon unknown sky", "", "wind sea ship sea"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text.txt").write_text("\n".join(LINES * 10) + "\n")
    (folder / "labels.txt").write_text("0\n1\n0\n\n1\n" * 10)
    return load_corpus(folder / "text.txt", folder, 11, str(folder / "labels.txt"))


def test_documents_for_the_peers_have_the_known_words(corpus):
    words = spherical.words_of(corpus)
    kept = {word for line in LINES for word in line.split() if "".join(LINES).count(word) > 1}
    expected = [[word for word in line.split() if word in kept] for line in LINES * 10]
    assert words == expected
    assert not words[3]


def test_training_takes_the_steps_and_every_row_names_its_scores(corpus, capsys):
    config = dataclasses.replace(spherical_embedding.SMOKE, steps=40, batch_size=8, sample=1.0)
    state, seconds = spherical.trained(config, corpus, 3)
    assert int(state.count) == 5  # two of them are not timed
    assert seconds > 0
    vectors = spherical.lsa(corpus, most=1.0)
    assert len(vectors) == 50
    assert np.isfinite(vectors).all()


def test_parts_of_a_step_run(corpus):
    config = dataclasses.replace(spherical_embedding.SMOKE, steps=40)
    for run in spherical.step_parts(config, corpus).values():
        run()


def test_similarity_has_a_row_for_ours_with_each_list(corpus, tmp_path):
    config = dataclasses.replace(spherical_embedding.SMOKE, batch_size=8, sample=1.0)
    assert spherical.similarity_case(config, corpus) == []
    (tmp_path / "pairs.txt").write_text("sun\tsky\t9\nsea\tship\t8\nsun\tsea\t1\n")
    config = dataclasses.replace(config, similarity=str(tmp_path / "pairs.txt"))
    row = spherical.similarity_case(config, corpus)[0]
    assert row["name"] == "ours"
    assert -1 <= row["pairs"] <= 1
