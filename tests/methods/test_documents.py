"""Judges of documents and words, on cases with known answers."""

import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.methods import documents

NUMBERS = {"king": 0, "queen": 1, "man": 2, "woman": 3, "apple": 4}


def unit(x):
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


VECTORS = unit(np.array([[1, 1, 0.0], [1, -1, 0], [0.1, 1, 0], [0.1, -1, 0], [0, 0, 1]]))


def groups(count=60):
    """Unit vectors around three axes, and which axis."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    return unit(np.eye(3)[labels] + 0.05 * rng.standard_normal((count, 3))), labels


def test_separate_groups_are_found():
    x, labels = groups()
    found = documents.clustered(x, labels, 3)
    assert found["nmi"] > 0.7  # one start in a few puts two centers into one group
    assert found["spherical_nmi"] > 0.7
    own = documents.classified(x[:30], labels[:30], x[30:], labels[30:], 4)
    assert own == {"knn_f1": 1.0, "knn_accuracy": 1.0}


def test_f1_is_a_mean_over_classes():
    """Three of four right; class 1, precision 1 and recall 1/2; class 0, 2/3 and 1."""
    fit = np.repeat(np.float32([[1, 0], [0, 1]]), 3, axis=0)
    test = np.float32([[1, 0], [1, 0], [0, 1], [1, 0]])
    labels = np.array([0, 0, 1, 1])
    found = documents.classified(fit, np.array([0, 0, 0, 1, 1, 1]), test, labels, 2)
    assert found["knn_accuracy"] == 0.75
    np.testing.assert_allclose(found["knn_f1"], (0.8 + 2 / 3) / 2)


def test_spherical_kmeans_by_hand():
    x = unit(np.array([[1, 0.0], [1, 0.1], [0, 1], [0.1, 1]]))
    found = documents.spherical_kmeans(x, 2, 0)
    assert found[0] == found[1] != found[2] == found[3]
    assert len(set(documents.spherical_kmeans(x, 4, 0))) == 4


def test_similarity(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("King\tqueen\t5\nking\tman\t8\nking\tunknown\t9\napple\tking\t1\n")
    found = documents.similarity(path, NUMBERS, VECTORS)
    assert found == {"spearman": pytest.approx(3**0.5 / 2), "pairs": 3}  # of 0, 0.77, 0


def test_analogies(tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text(": family\nman king woman queen\nMan king woman apple\nking x y z\n\n")
    assert documents.analogies(path, NUMBERS, VECTORS) == 0.5


def test_neighbours_are_in_order_without_the_word_itself():
    assert list(documents.neighbours(0, VECTORS, 2)) == [2, 1]


@pytest.mark.parametrize(
    ("judge", "text", "message"),
    [
        (documents.similarity, "a b 1\n", r"list.txt:1: 'a b 1'; expected word TAB word TAB"),
        (documents.similarity, "king\tman\tx\n", "expected word TAB word TAB score"),
        (documents.similarity, "a\tb\t1\n", "0 pairs are known; expected at least 2"),
        (documents.analogies, "a b c\n", "list.txt:1: 3 words; expected 4"),
        (documents.analogies, "a b c d\n", "no question is known"),
        (documents.analogies, None, "No such file or directory; expected a list"),
    ],
)
def test_refused_lists(judge, text, message, tmp_path):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        judge(path, NUMBERS, VECTORS)
