"""JoSE: words and documents as unit vectors, trained together.

Meng et al. 2019, Spherical Text Embedding (arXiv 1911.01196).

    python -m experiments.spherical_embedding              knn_accuracy 0.699, 1.6 min

The default corpus is the documentation strings of Python's standard library and of the packages
that are installed here anyway; --corpus FILE: your own, a document on each line. `python -m
experiments.embed RUN` writes the vectors, and those of documents that were not trained.
"""

import pathlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.logs import notice
from experiments.lib.sources.corpus import Blocks, Corpus
from experiments.lib.sources.text import Text
from experiments.methods import documents
from experiments.methods.latent_map import latent_map
from experiments.methods.spherical import SphericalConfig, spherical


@dataclass(frozen=True)
class Config(SphericalConfig):
    """The knobs of training and of the judgement."""

    steps: int = 6000
    """Training steps."""
    batch_size: int = 64
    """Blocks of words in a step."""
    eval_every: int = 0
    """Steps between two judgements, with pictures; 0: only at the end."""
    known: Annotated[int, AtLeast(0)] = 0
    """Documents that the nearest neighbours are taken from, the first ones; the others are
    classified. 0: three fifths, drawn at random."""
    similarity: str = ""
    """Lists of word TAB word TAB score, with commas between the files: how well cosines agree."""
    analogies: str = ""
    """File of questions, four words on each line."""


SMOKE = Config(
    steps=4, batch_size=8, dims=8, block=16, docstrings="optax", eval_every=2, log_every=1
)
METRICS = documents.METRICS
_SHOWN = 4  # words whose neighbours are printed
_NEAR = 8  # neighbours of each
_DRAWN = 8  # classes in the map
_POINTS = 3000  # documents in the map


def build(config: Config):
    """The blocks of a corpus, and the vectors of its words and documents."""
    corpus = config.text()
    count = len(corpus.starts) - 1
    if corpus.labels is not None and not 3 <= (config.known or count * 3 // 5) < count:
        raise UserError(
            f"--known {config.known}: {corpus.name} has {count} documents; expected at least 3"
            " known ones, and others that are classified"
        )
    blocks = Blocks(corpus, config.block)
    own = {"judge": judgement(config, corpus), "pictures": pictures(corpus)}
    return Text(blocks, blocks, corpus), spherical(config, corpus, meanings=METRICS, **own)


def judgement(config: Config, corpus: Corpus):
    """Classes of documents, and lists of words."""
    files = [pathlib.Path(file) for file in config.similarity.split(",") if file]

    def judge(state, key):
        words, vectors = np.asarray(state.words), np.asarray(state.documents)
        numbers = {word: number for number, word in enumerate(corpus.words)}
        found: dict[str, float] = {}
        if corpus.labels is not None:
            found |= of_classes(vectors, corpus, config.known)
        for file in files:
            own = documents.similarity(file, numbers, words)
            found |= {f"{file.stem}/{name}": value for name, value in own.items()}
        if config.analogies:
            file = pathlib.Path(config.analogies)
            found["analogies"] = documents.analogies(file, numbers, words)
        for number in np.linspace(0.01, 0.1, _SHOWN) * len(words):
            near = documents.neighbours(int(number), words, _NEAR)
            notice(f"{corpus.words[int(number)]}: {' '.join(corpus.words[i] for i in near)}")
        return found

    return judge


def of_classes(vectors, corpus: Corpus, known: int) -> dict[str, float]:
    """Neighbours and clusters of the documents that have a label and a known word."""
    labels, classes = np.asarray(corpus.labels), len(corpus.classes)
    order = np.arange(len(labels))
    if not known:
        order = np.random.default_rng(0).permutation(order)
        known = len(order) * 3 // 5
    there = (labels >= 0) & (np.diff(corpus.starts) > 0)
    fit, test = (part[there[part]] for part in (order[:known], order[known:]))
    x, y = vectors[there], labels[there]
    near = documents.classified(vectors[fit], labels[fit], vectors[test], labels[test], classes)
    return near | documents.clustered(x, y, classes)


def pictures(corpus: Corpus):
    """A map of documents of the largest classes."""

    def draw(state, batch, key):
        labels = corpus.labels if corpus.labels is not None else np.zeros(len(corpus.starts) - 1)
        labels = labels.astype(int)
        count = np.bincount(labels[labels >= 0], minlength=1)
        shown = np.flatnonzero(np.isin(labels, np.argsort(-count)[:_DRAWN]))
        shown = shown[:: max(1, len(shown) // _POINTS)]
        names = np.array(corpus.classes or ("all",), dtype=object)[labels[shown]]
        vectors = np.asarray(state.documents)[shown]
        return {"documents": latent_map(vectors, names, "class", "documents")}

    return draw


if __name__ == "__main__":
    launch(build, Config)
