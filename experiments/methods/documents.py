"""Judges of vectors of documents and words: neighbours, clusters, similarity, analogies."""

import pathlib

import numpy as np

from experiments.lib.errors import UserError
from experiments.methods import clusters
from jaxgen.metrics import knn_votes

METRICS = {
    "knn_f1": "mean over classes of F1 of the 3 nearest documents; higher is better",
    "knn_accuracy": "share of documents whose class the 3 nearest documents tell",
    "spherical_nmi": "nmi of spherical K-means",
    "pairs": "pairs of words of the list that are in the vocabulary",
    "spearman": "rank correlation of cosines with people's scores of similarity",
    "analogies": "share of analogies a : b = c : ? whose fourth word is found",
    **clusters.METRICS,
}
_STARTS = 5  # of K-means, whose scores are averaged
_ROUNDS = 100  # of spherical K-means at most


def classified(fit, fit_labels, test, test_labels, classes: int) -> dict[str, float]:
    """Scores of the three nearest of the documents `fit` for the class of others.

    Args:
      fit: unit vectors [N, d].
      fit_labels: integers [N].
      test: unit vectors [M, d].
      test_labels: integers [M].
      classes: number of classes; those without a document in `test` do not count in the mean.
    """
    from sklearn.metrics import f1_score  # noqa: PLC0415  slow to import

    found = np.argmax(knn_votes(fit, fit_labels, test, 3, classes), axis=-1)
    present = np.unique(test_labels)
    f1 = f1_score(test_labels, found, average="macro", labels=present, zero_division=0)
    return {"knn_f1": float(f1), "knn_accuracy": float(np.mean(found == test_labels))}


def clustered(x, labels, classes: int) -> dict[str, float]:
    """Agreement with the classes of as many clusters; means over five starts of K-means."""
    rows = []
    for seed in range(_STARTS):
        found = clusters.judged(
            clusters.kmeans(x, x, classes, seed, starts=1), labels, classes, classes
        )
        own = clusters.judged(spherical_kmeans(x, classes, seed), labels, classes, classes)
        rows.append(found | {"spherical_nmi": own["nmi"]})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def spherical_kmeans(x: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Clusters of unit vectors: those of the largest cosine with a center, a mean direction.

    Args:
      x: [N, d], unit vectors.
      count: of the clusters, at most N.
      seed: of the start, which is that of k-means++.

    Returns:
      int32 [N].
    """
    from sklearn.cluster import kmeans_plusplus  # noqa: PLC0415  slow to import

    centers, _ = kmeans_plusplus(x, count, random_state=seed)
    found = np.full(len(x), -1)
    for _ in range(_ROUNDS):
        new = np.argmax(x @ centers.T, axis=1)
        if np.array_equal(new, found):
            break
        found = new
        sums = np.zeros_like(centers)
        np.add.at(sums, found, x)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centers)
    return found.astype(np.int32)


def similarity(path: pathlib.Path, numbers: dict[str, int], vectors) -> dict[str, float]:
    """Spearman's rank correlation of cosines with the scores of a list.

    Args:
      path: a file with word TAB word TAB score on each line.
      numbers: of the words; lower-case ones count if a pair has none as it stands.
      vectors: unit vectors [V, d].

    Raises:
      UserError: a line has another form, or no pair is known.
    """
    from scipy.stats import spearmanr  # noqa: PLC0415  slow to import

    cosines, scores = [], []
    for at, line in enumerate(_lines(path), 1):
        parts = line.split("\t")
        try:
            first, second, score = parts[0], parts[1], float(parts[2])
        except (IndexError, ValueError):
            raise UserError(f"{path}:{at}: {line!r}; expected word TAB word TAB score") from None
        pair = [numbers.get(word, numbers.get(word.lower())) for word in (first, second)]
        if None not in pair:
            cosines.append(float(vectors[pair[0]] @ vectors[pair[1]]))
            scores.append(score)
    if len(scores) < 2:
        raise UserError(f"{path}: {len(scores)} pairs are known; expected at least 2")
    return {"spearman": float(spearmanr(cosines, scores).statistic), "pairs": len(scores)}


def analogies(path: pathlib.Path, numbers: dict[str, int], vectors) -> float:
    """Share of questions a b c d in which d is nearest to b - a + c, of those that are known.

    Args:
      path: a file of four words on each line, as word2vec's questions-words; lines that start with
        ":" name what follows.
      numbers: of the words; lower-case ones count if a question is not known as it stands.
      vectors: unit vectors [V, d].

    Raises:
      UserError: a line has another form, or no question is known.
    """
    asked = []
    for at, line in enumerate(_lines(path), 1):
        words = line.split()
        if line.startswith(":") or not words:
            continue
        if len(words) != 4:
            raise UserError(f"{path}:{at}: {len(words)} words; expected 4")
        asked.append([numbers.get(word, numbers.get(word.lower(), -1)) for word in words])
    known = np.array([row for row in asked if min(row) >= 0], int)
    if not len(known):
        raise UserError(f"{path}: no question is known; expected words of the vocabulary")
    right = 0
    for part in np.array_split(known, -(-len(known) // 512)):
        a, b, c, d = part.T
        scores = (vectors[b] - vectors[a] + vectors[c]) @ vectors.T
        np.put_along_axis(scores, part[:, :3], -np.inf, axis=1)
        right += int(np.sum(scores.argmax(1) == d))
    return right / len(known)


def neighbours(word: int, vectors, count: int) -> np.ndarray:
    """Numbers of the words of the largest cosines with a word, without it, falling: [count]."""
    cosines = vectors @ vectors[word]
    cosines[word] = -np.inf
    return np.argsort(-cosines)[:count]


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a list of words") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
