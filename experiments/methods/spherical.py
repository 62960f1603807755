"""JoSE: words, their contexts and documents as unit vectors (arXiv 1911.01196).

A batch is B blocks of L consecutive words, and L random words for each block. The pairs of a block
come from one product of L x L cosines, and their negatives from another. Each word has a few of the
random ones for all its pairs; a context is in the pairs of many words, so it meets many of them.
Documents lag behind words that move, so the last steps move the documents alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.batches import test_batches
from experiments.lib.config import Above, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.sources.corpus import Blocks, Corpus
from experiments.lib.sources.text import TextConfig
from experiments.methods.spherical_steps import RULES, Block, document_steps
from jaxgen.optimizers import add_to_unit_rows


@dataclass(frozen=True)
class SphericalConfig(TextConfig):
    """The flags of the embedding and of its training."""

    dims: Annotated[int, AtLeast(2)] = 100
    """Numbers of a vector."""
    rule: Literal["split", "joint"] = "split"
    """split: the two hinges and the steps of the authors' program; joint: the paper's one hinge."""
    window: Annotated[int, AtLeast(1)] = 40
    """Largest distance of a word and its context; each word draws its own from 1 to this. Wide ones
    give topics, narrow ones such as 5 words that can stand for each other."""
    negatives: Annotated[int, AtLeast(1)] = 4
    """Random words that each pair, and each word in its document, is held against; at most the
    words of a block."""
    margin: Annotated[float, AtLeast(0)] = 0.3
    """By how much the cosine of a word and its context shall exceed that of a random one."""
    document_margin: Annotated[float, AtLeast(0)] = 0.6
    """The same of a word and its document; --rule joint has one margin for
    both, and this one where the documents move alone."""
    settle: Annotated[float, AtLeast(0), Below(1)] = 0.4
    """Share of the steps, the last ones, that move the documents alone; the words stay."""
    sample: Annotated[float, Above(0)] = 1e-4
    """Words that are more frequent than this are skipped at random, as in word2vec."""
    learning_rate: Annotated[float, AtLeast(0)] = 0.05
    """Size of the first step; it falls to zero along a line, and again for the documents alone."""
    most: Annotated[float, Above(0)] = 25.0
    """Steps by which a word moves at most at once, however often it occurs in a batch."""
    most_document: Annotated[float, Above(0)] = 100.0
    """The same of a document."""
    block: Annotated[int, AtLeast(2)] = 64
    """Words of a block; pairs do not reach from one block into the next."""


class State(NamedTuple):
    """Unit vectors, and the steps done.

    Attributes:
      words: u, [V, d].
      contexts: v, [V, d].
      documents: [D, d].
      count: int32.
    """

    words: Any
    contexts: Any
    documents: Any
    count: Any


def spherical(config: SphericalConfig, corpus: Corpus, **rest) -> Method:
    """Trains the vectors of a corpus.

    Args:
      config: the flags.
      corpus: the text; its labels are not used.
      **rest: the other fields of the method.

    Raises:
      UserError: there are more negatives than words of a block.
    """
    if config.negatives > config.block:
        raise UserError(
            f"--negatives {config.negatives}: expected at most --block {config.block}, the number"
            " of random words of a block"
        )
    draw, steps_of = drawing(config, corpus.counts), RULES[config.rule]
    margins = config.margin, config.document_margin, config.negatives
    first = max(1, round(config.steps * (1 - config.settle)))

    def init(key, batch):
        sizes = len(corpus.counts), len(corpus.counts), len(corpus.starts) - 1
        keyed = zip(jax.random.split(key, 3), sizes, strict=True)
        words, contexts, documents = (unit_rows(key, n, config.dims) for key, n in keyed)
        return State(words, contexts, documents, jnp.zeros((), jnp.int32))

    def moved(table, rate, most, *parts):
        rows = jnp.concatenate([rows.ravel() for rows, _ in parts])
        steps = jnp.concatenate([s.step.reshape(-1, config.dims) for _, s in parts])
        counts = jnp.concatenate([s.count.ravel() for _, s in parts])
        return add_to_unit_rows(table, rows, rate * steps, counts, most)

    def train(state, places, documents, key):
        block = vectors(state, places, documents, draw(key, places, documents))
        words, contexts, negatives, of_documents, loss = steps_of(*margins, block)
        rate = config.learning_rate * jnp.maximum(1e-4, 1 - state.count / first)
        state = State(
            moved(state.words, rate, config.most, (places, words), (block.drawn, negatives)),
            moved(state.contexts, rate, config.most, (places, contexts)),
            moved(state.documents, rate, config.most_document, (documents, of_documents)),
            state.count + 1,
        )
        return state, loss

    def settle(state, places, documents, key):
        block = vectors(state, places, documents, draw(key, places, documents))
        *_, of_documents, loss = document_steps(*margins[1:], block)
        rate = config.learning_rate * (config.steps - state.count) / max(1, config.steps - first)
        own = moved(state.documents, rate, config.most_document, (documents, of_documents))
        return state._replace(documents=own, count=state.count + 1), loss

    def step(state, batch, key):
        own = state, batch["tokens"], batch["documents"], key
        state, loss = jax.lax.cond(state.count < first, train, settle, *own)
        return state, {"loss": loss}

    return Method(init, step, **rest)


class Drawn(NamedTuple):
    """What is drawn for a batch; see `Block`."""

    negatives: Any
    pairs: Any
    kept: Any


def vectors(state: State, tokens, documents, drawn: Drawn) -> Block:
    """What the tables hold for a batch of blocks."""
    places, others = jnp.maximum(tokens, 0), jnp.maximum(documents, 0)
    return Block(
        tokens,
        drawn.negatives,
        drawn.pairs,
        drawn.kept,
        state.words[places],
        state.contexts[places],
        state.documents[others],
        state.words[drawn.negatives],
    )


def drawing(config: SphericalConfig, counts: np.ndarray) -> Callable:
    """(key, tokens [B, L], documents [B, L]) -> `Drawn`; tokens of -1 are none.

    As in word2vec: frequent words are skipped, before windows are counted; a window's size is
    uniform in 1 ... `window`; negatives have probabilities proportional to count^(3/4).
    """
    share = counts / counts.sum()
    keep = np.minimum(1, np.sqrt(config.sample / share) + config.sample / share)
    power = np.cumsum(np.float64(counts) ** 0.75)
    kept_share, cumulative = (jnp.asarray(x, jnp.float32) for x in (keep, power / power[-1]))

    def draw(key, tokens, documents):
        keep_key, window_key, negative_key = jax.random.split(key, 3)
        chance = jax.random.uniform(keep_key, tokens.shape)
        kept = (tokens >= 0) & (chance < kept_share[jnp.maximum(tokens, 0)])
        window = 1 + jax.random.randint(window_key, tokens.shape, 0, config.window)
        found = jnp.searchsorted(cumulative, jax.random.uniform(negative_key, tokens.shape))
        negatives = jnp.minimum(found, len(counts) - 1).astype(jnp.int32)

        places = jnp.where(kept, jnp.cumsum(kept, axis=1), -(10**6))
        apart = jnp.abs(places[:, :, None] - places[:, None, :])
        near = (apart > 0) & (apart <= window[:, :, None])  # of two that are skipped, 0
        return Drawn(negatives, near & (documents[:, :, None] == documents[:, None, :]), kept)

    return draw


def inferred(config: SphericalConfig, corpus: Corpus, words, new: Corpus, key, passes: int):
    """Vectors of documents that were not trained: the words stay, the documents alone move.

    The document's hinge of `split_steps`, `passes` times over all the words, from a rate of
    `learning_rate` down to zero.

    Args:
      config: of the run.
      corpus: whose vocabulary and counts the run has.
      words: u, [V, d].
      new: the documents, numbered by the same vocabulary.
      key: of the start, of the words that are skipped, and of the negatives.
      passes: over the documents.

    Returns:
      [D, d], unit vectors; NaN for a document without a known word.
    """
    draw, split = drawing(config, corpus.counts), Blocks(new, config.block)
    init_key, key = jax.random.split(key)
    known, total = np.diff(new.starts) > 0, passes * math.ceil(len(split) / config.batch_size)

    @partial(jax.jit, donate_argnums=0)
    def step(documents, batch, key, count):
        drawn = draw(key, batch["tokens"], batch["documents"])
        state = State(words, words, documents, count)
        block = vectors(state, batch["tokens"], batch["documents"], drawn)
        found = document_steps(config.document_margin, config.negatives, block)[2]
        rate = config.learning_rate * (1 - count / total)
        rows, steps = batch["documents"].ravel(), rate * found.step.reshape(-1, config.dims)
        return add_to_unit_rows(documents, rows, steps, found.count.ravel(), config.most_document)

    documents, count = unit_rows(init_key, len(known), config.dims), 0
    for _ in range(passes):
        for batch in test_batches(split, config.batch_size):
            valid = batch.pop("valid")[:, None]
            own = {name: np.where(valid, column, -1) for name, column in batch.items()}
            documents = step(documents, own, jax.random.fold_in(key, count), count)
            count += 1
    return np.where(known[:, None], documents, np.nan)


def unit_rows(key: jax.Array, count: int, dims: int):
    """Directions drawn uniformly on the sphere, [count, dims]."""
    normal = jax.random.normal(key, (count, dims))
    return normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
