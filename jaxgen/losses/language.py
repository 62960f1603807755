"""What a language model is asked to predict: masked words, the next token, the rest of a text.

Each function turns token ids into a `Prediction`: what the network reads, and which tokens it is
asked for. With logits [B, K, V] of the positions `at` (see `jaxgen.models.MaskedLM`):

    nats = optax.softmax_cross_entropy_with_integer_labels(logits, prediction.targets)
    loss = sum(prediction.weights * nats) / sum(prediction.weights)

All is computed from ids and key inside of the training step, so every pass over the data has masks
of its own. Ids are integers of any dtype and keep it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import require, require_scalar


class Prediction(NamedTuple):
    """What a network reads and what it is asked for.

    Attributes:
      ids: [B, L], what the network reads.
      at: int32 [B, K], positions whose logits are wanted; None for all of them, with K = L.
      targets: [B, K], the right tokens there, in the dtype of ids.
      weights: f32 [B, K], 1 where a target counts and 0 elsewhere.
    """

    ids: Any
    at: Any
    targets: Any
    weights: Any


def masked_words(
    key, ids, begins, maskable, ordinary, mask_id, rate=0.15, *, masked=0.8, random=0.1
) -> Prediction:
    """BERT's masked language model, where all tokens of a word are chosen or none of them.

    Devlin et al. 2018 (BERT, arXiv 1810.04805, section 3.1); whole words of Cui et al. 2019 (arXiv
    1906.08101). A row of n maskable tokens has a budget of round(rate n), halves to even, and at
    least 1 if n > 0. Words are taken in random order until one exceeds the rest of the budget; a
    row may therefore choose fewer, even none if its first word is longer than the budget. Each
    chosen token becomes `mask_id` with probability `masked`, a token of `ordinary` with probability
    `random`, and stays as it is otherwise, independently of the others of its word.

    A fixed number of slots, K = max(1, round(rate L)), gives the head a static shape. Surplus slots
    have weight 0, some position of the row, and the token there as their target.

    Args:
      key: a PRNG key, used once.
      ids: integers [B, L].
      begins: [B, L], True or 1 where a word begins; the tokens after it, up to the next one that
        begins a word or is not maskable, belong to the word. All ones choose single tokens.
      maskable: [B, L], False or 0 at special tokens and padding, which are never chosen.
      ordinary: integers [R], the tokens from which random ones are drawn, all equally often: those
        of the vocabulary that are not special.
      mask_id: the id of [MASK].
      rate: the share of tokens to choose, in (0, 1], a Python number.
      masked: probability in [0, 1].
      random: probability in [0, 1 - masked].

    Returns:
      A `Prediction`, whose ids differ from the given ones at most at `at`.

    Raises:
      ValueError: shapes that do not fit, ids or ordinary that are not integers, or a number out of
        its range.
    """
    ids = _tokens(ids)
    begins, maskable = _like(ids, begins=begins) != 0, _like(ids, maskable=maskable) != 0
    ordinary = jnp.asarray(ordinary)
    if ordinary.ndim != 1 or not ordinary.size or not jnp.issubdtype(ordinary.dtype, jnp.integer):
        raise ValueError(f"ordinary {ordinary.dtype}{list(ordinary.shape)}; expected integers [R]")
    require(above=0, most=1, rate=rate)
    require(least=0, most=1, masked=masked, random=random)
    require(most=1, **{"masked + random": masked + random})
    require_scalar(mask_id=mask_id, rate=rate)
    order_key, fate_key, token_key = jax.random.split(key, 3)
    at, chosen = _choose_words(order_key, begins, maskable, rate)
    targets = jnp.take_along_axis(ids, at, axis=1)
    fate = jax.random.uniform(fate_key, at.shape, jnp.float32)
    other = ordinary[jax.random.randint(token_key, at.shape, 0, ordinary.size, jnp.int32)]
    read = jnp.where(fate < masked + random, other.astype(ids.dtype), targets)
    read = jnp.where(fate < masked, jnp.asarray(mask_id, ids.dtype), read)
    read = jnp.where(chosen, read, targets)
    ids = jnp.put_along_axis(ids, at, read, axis=1, inplace=False)
    return Prediction(ids, at, targets, chosen.astype(jnp.float32))


def next_tokens(ids, documents) -> Prediction:
    """GPT's objective: every position predicts the next token of its document.

    Radford et al. 2018, equation 1, for documents packed into rows. Attend with `causal_mask(L) &
    document_mask(documents)`, of `jaxgen.models`.

    Args:
      ids: integers [B, L].
      documents: [B, L], the number of each position's document, from 1; documents lie side by side,
        and 0 is padding.

    Returns:
      A `Prediction` of all positions: ids as given, at None. Weights are 0 at padding and at the
      last position of a document, whose target is the token that happens to follow.

    Raises:
      ValueError: shapes that do not fit, or ids that are not integers.
    """
    ids = _tokens(ids)
    documents = _like(ids, documents=documents)
    goes_on = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
    weights = jnp.pad(goes_on, ((0, 0), (0, 1))).astype(jnp.float32)
    return Prediction(ids, None, _following(ids), weights)


def prefix_targets(key, ids, documents, separator) -> tuple[Prediction, jax.Array]:
    """UniLM's sequence to sequence on plain text: the first part of a document is given, in full.

        [CLS] x_1 .. x_n [SEP] [SEP]  ->  [CLS] x_1 .. x_s [SEP] x_{s+1} .. x_n [SEP]

    with s uniform in 1 .. n - 1 for each document: another one is inserted at s and the second
    [SEP] dropped, whose place packing has reserved. Dong et al. 2019 (UniLM, arXiv 1905.03197,
    section 2.3), in the form of Su Jianlin's bert4keras: predicted is all that follows the inserted
    separator, with the last [SEP], each token from the position before it.

    Attend with `prefix_mask(segments) & document_mask(documents)`, of `jaxgen.models`: a position
    that predicts a token then sees neither it nor what follows it.

    Args:
      key: a PRNG key, used once.
      ids: integers [B, L], every document as on the left above.
      documents: [B, L], as in `next_tokens`.
      separator: the id of [SEP].

    Returns:
      A `Prediction` of all positions, at None; and segments, int32 [B, L], 1 after the inserted
      separator. With n = 1, s is 1 and the last [SEP] alone is predicted; a document without any
      x_i is left as it is, and predicts nothing.

    Raises:
      ValueError: shapes that do not fit, ids that are not integers, or a separator with axes.
    """
    ids = _tokens(ids)
    documents = _like(ids, documents=documents)
    require_scalar(separator=separator)
    starts = jnp.pad(documents[:, 1:] != documents[:, :-1], ((0, 0), (1, 0)))
    first, last = _runs(starts)
    count = last - first - 2
    source = jax.random.randint(key, ids.shape, 1, jnp.maximum(count, 2), jnp.int32)
    source = jnp.take_along_axis(source, first, axis=1)  # one of each document
    after = jnp.arange(ids.shape[1], dtype=jnp.int32)[None] - (first + source + 1)
    after = jnp.where(documents != 0, after, -1)
    moved = jnp.concatenate([ids[:, :1], ids[:, :-1]], axis=1)
    ids = jnp.where(after > 0, moved, ids)
    ids = jnp.where(after == 0, jnp.asarray(separator, ids.dtype), ids)
    segments = (after > 0).astype(jnp.int32)
    # No document begins in segment 1, so what follows there is of the same document.
    weights = jnp.pad(segments[:, 1:], ((0, 0), (0, 1))).astype(jnp.float32)
    return Prediction(ids, None, _following(ids), weights), segments


def _choose_words(key, begins, maskable, rate):
    """Positions [B, K], word after word in random order, and whether each of them is chosen."""
    length = maskable.shape[1]
    sizes = np.arange(length + 1)
    budgets = np.maximum(np.rint(rate * sizes), sizes > 0).astype(np.int32)
    budget = jnp.asarray(budgets)[jnp.sum(maskable, axis=1)][:, None]
    before = jnp.pad(maskable[:, :-1], ((0, 0), (1, 0)))
    first, last = _runs(begins | ~maskable | ~before)
    # A word's tokens share one random number. `top_k` puts the lower of equal ones first, so they
    # keep their order, and words of equal numbers do not mix.
    bits = (jax.random.bits(key, maskable.shape, jnp.uint32) >> 1).astype(jnp.int32)
    order = jnp.where(maskable, jnp.take_along_axis(bits, first, axis=1), -1)
    _, at = jax.lax.top_k(order, int(budgets[-1]))
    slots = jnp.arange(at.shape[1], dtype=jnp.int32)[None]
    end = slots + jnp.take_along_axis(last, at, axis=1) - at  # slot of the word's last token
    return at, end < budget  # which no slot after the maskable ones is


def _runs(begins):
    """Of each position, int32 [B, L]: the first and the last position of the run it belongs to."""
    place = jnp.broadcast_to(jnp.arange(begins.shape[1], dtype=jnp.int32), begins.shape)
    ends = jnp.pad(begins[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    first = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    last = jnp.where(ends, place, begins.shape[1])
    return first, jax.lax.cummin(last, axis=1, reverse=True)


def _following(ids):
    """The next token of each position; at the last one its own, so that it is a valid id."""
    return jnp.concatenate([ids[:, 1:], ids[:, -1:]], axis=1)


def _tokens(ids):
    ids = jnp.asarray(ids)
    if ids.ndim != 2 or not ids.shape[1] or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"ids {ids.dtype}{list(ids.shape)}; expected integers [B, L], L >= 1")
    return ids


def _like(ids, **array):
    ((name, x),) = array.items()
    if jnp.shape(x) != ids.shape:
        raise ValueError(f"{name} {jnp.shape(x)}; expected {ids.shape} as ids")
    return jnp.asarray(x)
