"""Writes the vectors of a run of spherical_embedding, and those of new documents.

    python -m experiments.embed runs/spherical_embedding --out vectors --documents new.txt

Files in the folder --out: words.txt in the form of word2vec (count and dimensions, then a word and
its numbers on each line), vectors.npz with words, word_vectors, context_vectors, document_vectors,
and new.npz with document_vectors, NaN for a document without a known word, and `known`.
"""

import io
import pathlib
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
import tyro

from experiments.lib import runs
from experiments.lib.config import AtLeast, Checked
from experiments.lib.errors import UserError
from experiments.lib.launch import command
from experiments.lib.logs import notice
from experiments.lib.sources import docstrings
from experiments.lib.sources.corpus import Corpus, encode
from experiments.lib.workdir import write_atomic
from experiments.methods.spherical import SphericalConfig, State, inferred


@dataclass(frozen=True)
class Config(Checked):
    """What to write."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""
    out: pathlib.Path = pathlib.Path("vectors")
    """Folder of the files."""
    documents: pathlib.Path | None = None
    """File of new documents, one on each line."""
    passes: Annotated[int, AtLeast(1)] = 30
    """Passes over the new documents."""
    step: int | None = None
    """Step of the checkpoint; by default the newest."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Which model of a run with several --seeds."""


def main(config: Config) -> None:
    """Loads the run and writes its vectors."""
    run = runs.load(config.run, config.step, config.seed)
    if not isinstance(run.config, SphericalConfig):
        raise UserError(f"{config.run}: a run of {run.name}; expected one of spherical_embedding")
    corpus, state = run.data.corpus, State(*map(np.asarray, run.state))
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out / "words.txt", as_word2vec(corpus.words, state.words))
    _save(
        config.out / "vectors.npz",
        words=np.array(corpus.words),
        word_vectors=state.words,
        context_vectors=state.contexts,
        document_vectors=state.documents,
    )
    notice(f"{len(corpus.words)} words and {len(state.documents)} documents in {config.out}")
    if config.documents:
        texts = read_documents(config.documents, run.config)
        vectors = infer(run, texts, config.passes)
        known = np.isfinite(vectors).all(axis=1)
        _save(config.out / "new.npz", document_vectors=vectors, known=known)
        notice(f"{len(known)} new documents, {np.sum(~known)} of them without a known word")


def infer(run: runs.Run, texts: list[str], passes: int = 30, key=None) -> np.ndarray:
    """Vectors of new documents, [N, d]; NaN for one without a known word.

    Args:
      run: of spherical_embedding.
      texts: documents, words between spaces, as those of the corpus.
      passes: over the documents.
      key: a PRNG key; None: a fixed one.
    """
    corpus: Corpus = run.data.corpus
    tokens, starts = encode(corpus.words, texts)
    if not len(tokens):
        return np.full((len(texts), run.state.words.shape[1]), np.nan, np.float32)
    new = corpus._replace(tokens=tokens, starts=starts, labels=None)
    key = jax.random.key(0) if key is None else key
    assert isinstance(run.config, SphericalConfig)
    return inferred(run.config, corpus, run.state.words, new, key, passes)


def read_documents(path: pathlib.Path, config: SphericalConfig) -> list[str]:
    """The lines of a file; for a corpus of documentation strings their words in its form.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a document on each line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    return lines if config.corpus else [" ".join(docstrings.words(line)) for line in lines]


def as_word2vec(words, vectors: np.ndarray) -> bytes:
    """The text form of word2vec, with six decimals."""
    rows = [f"{len(words)} {vectors.shape[1]}"]
    rows += [
        f"{word} {' '.join(f'{x:.6f}' for x in vector)}"
        for word, vector in zip(words, vectors, strict=True)
    ]
    return ("\n".join(rows) + "\n").encode()


def _save(path: pathlib.Path, **arrays: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomic(path, content.getvalue())


if __name__ == "__main__":
    command(main, Config)
