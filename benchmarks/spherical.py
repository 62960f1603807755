"""JoSE: words per second and quality, against gensim and LSA on the same text and cores.

    python -m benchmarks.spherical                  # everything, on the documentation strings
    python -m benchmarks.spherical quality corpus=FILE labels=FILE known=11314 window=10

Needs gensim (`pip install gensim`) for word2vec and doc2vec; without it only the others run.

speed     `words_per_second` are those of the vocabulary that a training passes, skipped ones too.
          Ours: 100 steps of the experiment's default, without start and compilation; gensim: one
          epoch of word2vec (skip-gram) and doc2vec (PV-DBOW) with as many numbers, window and
          negatives and a thread for each core. `share` are parts of our step, compiled and timed
          alone: drawing, reading rows, products and sums, writing rows; and the step of the
          documents alone, which the last --settle of the steps are.
quality   Vectors of documents by ours, by doc2vec (both kinds, the same number of epochs) and by
          LSA (TF-IDF and 100 singular vectors), all of length 1: scores of the 3 nearest documents
          and of K-means, as `python -m experiments.spherical_embedding` prints them, with seconds.
similarity  Vectors of words by ours and by word2vec (skip-gram, the same number of epochs): rank
          correlation of cosines with people's scores; needs similarity=FILE,FILE.

The authors' C program, which reads the documents in the order of the file, is in RESULTS.md.

Results: RESULTS.md.
"""

import dataclasses
import importlib.util
import os
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lib
from experiments import spherical_embedding
from experiments.lib.batches import batches
from experiments.lib.sources.corpus import Blocks, Corpus
from experiments.methods import documents, spherical
from experiments.methods.spherical_steps import RULES
from jaxgen.optimizers import add_to_unit_rows

ROUNDS = 5
_STEPS = 100
_LSA = 100


def trained(config, corpus: Corpus, steps: int) -> tuple[spherical.State, float]:
    """The state after some steps, and the seconds that they took, without the first two."""
    method, blocks = spherical.spherical(config, corpus), Blocks(corpus, config.block)
    stream, step = (
        batches(blocks, config.batch_size, config.seed),
        jax.jit(method.step, donate_argnums=0),
    )
    state, start = jax.jit(method.init)(jax.random.key(0), next(stream)), 0.0
    for number in range(steps + 2):
        if number == 2:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = step(state, next(stream), jax.random.fold_in(jax.random.key(1), number))
    jax.block_until_ready(state)
    return state, time.perf_counter() - start


def words_of(corpus: Corpus) -> list[list[str]]:
    """The known words of each document."""
    words = np.array(corpus.words, dtype=object)
    pieces = np.split(np.asarray(corpus.tokens), corpus.starts[1:-1])
    return [list(words[piece]) for piece in pieces]


def gensim_models(config, corpus: Corpus, epochs: int) -> dict[str, Any]:
    """name -> function that trains it on the corpus; none without gensim."""
    if not importlib.util.find_spec("gensim"):
        lib.row("gensim", failed="gensim is not installed")
        return {}
    from gensim.models import Doc2Vec, Word2Vec  # noqa: PLC0415  optional
    from gensim.models.doc2vec import TaggedDocument  # noqa: PLC0415

    texts = words_of(corpus)
    tagged = [TaggedDocument(words, [number]) for number, words in enumerate(texts)]
    same = {
        "vector_size": config.dims,
        "window": config.window,
        "negative": config.negatives,
        "sample": config.sample,
        "min_count": 1,
        "workers": os.cpu_count(),
        "epochs": epochs,
    }
    return {
        "word2vec": lambda: Word2Vec(texts, sg=1, **same),
        "doc2vec DBOW": lambda: Doc2Vec(tagged, dm=0, dbow_words=1, **same),
        "doc2vec DM": lambda: Doc2Vec(tagged, dm=1, **same),
    }


def speed_case(config, corpus: Corpus) -> list[dict]:
    """Words per second, and where the time goes."""
    words = _STEPS * config.batch_size * config.block
    times: dict[str, list[float]] = {"ours": []}
    models = gensim_models(config, corpus, 1)
    models.pop("doc2vec DM", None)
    for _ in range(ROUNDS):
        times["ours"].append(trained(config, corpus, _STEPS)[1] / words)
        for name, train in models.items():
            times.setdefault(name, []).append(lib.seconds(train) / len(corpus.tokens))
    rows = [
        lib.row(
            "speed",
            name=name,
            words_per_second=1 / statistics.median(t),
            **lib.ratio(t, times["ours"]),
        )
        for name, t in times.items()
    ]
    parts = lib.in_turn(step_parts(config, corpus), 4 * ROUNDS)
    whole = statistics.median(parts["step"])
    return rows + [
        lib.row(
            "parts",
            name=name,
            milliseconds=1e3 * statistics.median(t),
            share=statistics.median(t) / whole,
        )
        for name, t in parts.items()
    ]


def step_parts(config, corpus: Corpus) -> dict:
    """The step and its parts, as functions of no arguments."""
    method, blocks = spherical.spherical(config, corpus), Blocks(corpus, config.block)
    batch = {k: jnp.asarray(v) for k, v in next(batches(blocks, config.batch_size, 0)).items()}
    tokens, documents = batch["tokens"], batch["documents"]
    state, key = jax.jit(method.init)(jax.random.key(0), batch), jax.random.key(1)
    draw = jax.jit(spherical.drawing(config, corpus.counts))
    drawn = draw(key, tokens, documents)
    read = jax.jit(spherical.vectors)
    block = read(state, tokens, documents, drawn)
    margins = config.margin, config.document_margin, config.negatives
    steps_of = jax.jit(lambda block: RULES[config.rule](*margins, block))
    words, _, negatives, *_ = steps_of(block)
    rows = jnp.concatenate([tokens.ravel(), drawn.negatives.ravel()])
    steps = jnp.concatenate([x.step.reshape(-1, config.dims) for x in (words, negatives)])
    counts = jnp.concatenate([x.count.ravel() for x in (words, negatives)])
    write = jax.jit(add_to_unit_rows, donate_argnums=0, static_argnums=4)
    table = jnp.array(state.words)

    def written():
        nonlocal table
        table = jax.block_until_ready(write(table, rows, steps, counts, config.most))

    def stepping(count):
        own = jax.tree.map(jnp.copy, state)._replace(count=jnp.int32(count))
        return lib.training(lambda state, batch: method.step(state, batch, key), own, batch)

    return {
        "step": stepping(0),
        "step of the documents alone": stepping(config.steps),
        "draw": lambda: jax.block_until_ready(draw(key, tokens, documents)),
        "read rows": lambda: jax.block_until_ready(read(state, tokens, documents, drawn)),
        "products": lambda: jax.block_until_ready(steps_of(block)),
        "write rows of words": written,
    }


def quality_case(config, corpus: Corpus, known: int) -> list[dict]:
    """Scores of vectors of documents, and the seconds that they took."""
    rows = []

    def add(name, vectors, seconds):
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        scores = spherical_embedding.of_classes(np.float32(unit), corpus, known)
        rows.append(lib.row("quality", name=name, seconds=seconds, **scores))

    state, seconds = trained(config, corpus, config.steps)
    add("ours", np.asarray(state.documents), seconds)
    start = time.perf_counter()
    vectors = lsa(corpus)
    add("LSA", vectors, time.perf_counter() - start)
    models = gensim_models(config, corpus, epochs_of(config, corpus))
    models.pop("word2vec", None)
    for name, train in models.items():
        start = time.perf_counter()
        model = train()
        count = len(corpus.starts) - 1
        add(name, np.stack([model.dv[i] for i in range(count)]), time.perf_counter() - start)
    return rows


def epochs_of(config, corpus: Corpus) -> int:
    """Passes over the corpus, rounded, that our steps are."""
    return max(1, round(config.steps * config.batch_size / len(Blocks(corpus, config.block))))


def similarity_case(config, corpus: Corpus) -> list[dict]:
    """Rank correlation of cosines of words with people's scores, for the lists of `similarity`."""
    files = [pathlib.Path(file) for file in config.similarity.split(",") if file]
    if not files:
        return []
    numbers, rows = {word: number for number, word in enumerate(corpus.words)}, []

    def add(name, vectors, seconds):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = {f.stem: documents.similarity(f, numbers, unit)["spearman"] for f in files}
        rows.append(lib.row("similarity", name=name, seconds=seconds, **scores))

    state, seconds = trained(config, corpus, config.steps)
    add("ours", np.asarray(state.words), seconds)
    models = gensim_models(config, corpus, epochs_of(config, corpus))
    if "word2vec" in models:
        start = time.perf_counter()
        model = models["word2vec"]()
        seconds = time.perf_counter() - start
        add("word2vec", np.stack([model.wv[word] for word in corpus.words]), seconds)
    return rows


def lsa(corpus: Corpus, most: float = 0.1) -> np.ndarray:
    """TF-IDF and the first singular vectors, by scikit-learn: [D, 100].

    Args:
      corpus: the documents.
      most: words of a larger share of the documents are left out. 0.1 is the best of 1, 0.5 and 0.1
        for the training documents of 20 Newsgroups.
    """
    from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415  slow to import
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    counted = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True, max_df=most)
    table = counted.fit_transform(words_of(corpus))
    return TruncatedSVD(min(_LSA, table.shape[1]), random_state=0).fit_transform(table)


def main(arguments: list[str]) -> None:
    """Runs the cases named, or all; name=value are flags of the experiment."""
    flags = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    kinds = {f.name: type(f.default) for f in dataclasses.fields(spherical_embedding.Config)}
    config = spherical_embedding.Config(**{n: kinds[n](value) for n, value in flags.items()})
    corpus = config.text()
    cases = {
        "speed": lambda: speed_case(config, corpus),
        "quality": lambda: quality_case(config, corpus, config.known),
        "similarity": lambda: similarity_case(config, corpus),
    }
    lib.run(cases, [argument for argument in arguments if "=" not in argument])


if __name__ == "__main__":
    main(sys.argv[1:])
