"""The steps of JoSE's vectors: how a block of words moves words, contexts and documents.

Meng et al. 2019 (arXiv 1911.01196). All steps are tangent to the sphere at the vector that they
move, and taken from where the vectors stand before the block.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from jaxgen.optimizers import project_by_cosine


class Steps(NamedTuple):
    """Steps of vectors, and how many single ones each is the sum of.

    Attributes:
      step: [..., d], tangent to the sphere at the vector.
      count: [...].
    """

    step: Any
    count: Any


class Block(NamedTuple):
    """The vectors of a batch of blocks.

    Attributes:
      words, contexts: u and v of each position, [B, L, d].
      documents: of the document of each position, [B, L, d].
      negatives: u' of each position, [B, L, K, d].
      pairs: whether position j is a context of the word at i, and negative k of j is not that
        word; a tuple of K arrays [B, L (i), L (j)].
      kept: whether the word is trained, and negative k is another word, [B, L, K].
    """

    words: Any
    contexts: Any
    documents: Any
    negatives: Any
    pairs: Any
    kept: Any


def split_steps(margin: float, block: Block):
    """The steps of the authors' program, summed over pairs and negatives.

    Where m - f + h > 0 with f = u.v and h = u'.v, and t(x, y) = y - (x.y) x:

        u += (1 - f) t(u, v)     u' -= 2 h t(u', v)     v += (1 - f + h) t(v, u - u')

    and likewise with d for v, once for each word and negative of it.

    Returns:
      `Steps` of words, contexts, negatives and documents, and the mean hinge of the pairs.
    """
    u, v, d, n = block.words, block.contexts, block.documents, block.negatives
    cosines = jnp.einsum("bid,bjd->bij", u, v)
    negative = _dot(v[:, :, None], n)
    of_words = of_contexts = jnp.zeros_like(cosines)
    lost = total = jnp.zeros(())
    of_negatives = []
    for k, pairs in enumerate(block.pairs):
        gap = cosines - negative[:, None, :, k]
        active = (pairs & (gap < margin)).astype(cosines.dtype)
        weight = active * (1 - gap)
        of_words, of_contexts = of_words + active, of_contexts + weight
        of_negatives.append((active.sum(1), weight.sum(1)))
        lost, total = lost + jnp.sum(active * (margin - gap)), total + jnp.sum(pairs)
    actives, weights = (jnp.stack(x, axis=-1) for x in zip(*of_negatives, strict=True))
    pull = of_words * (1 - cosines)
    words = jnp.einsum("bij,bjd->bid", pull, v) - _times(jnp.sum(pull * cosines, axis=2), u)
    contexts = jnp.einsum("bij,bid->bjd", of_contexts, u) - jnp.sum(_times(weights, n), axis=2)
    along = jnp.sum(of_contexts * cosines, axis=1) - jnp.sum(weights * negative, axis=2)
    contexts -= _times(along, v)
    push = 2 * negative * actives
    negatives = _times(push * negative, n) - _times(push, v[:, :, None])

    more, others, documents = document_steps(margin, u, d, n, block.kept)
    return (
        Steps(words + more.step, of_words.sum(2) + more.count),
        Steps(contexts, of_words.sum(1)),
        Steps(negatives + others.step, actives + others.count),
        documents,
        lost / jnp.maximum(total, 1),
    )


def document_steps(margin: float, u, d, n, kept) -> tuple[Steps, Steps, Steps]:
    """The part of `split_steps` between words and documents: of words, negatives and documents."""
    own, other = _dot(u, d), _dot(d[:, :, None], n)
    gap = own[..., None] - other
    active = (kept & (gap < margin)).astype(gap.dtype)
    count = active.sum(-1)
    pull, push, weight = count * (1 - own), 2 * other * active, active * (1 - gap)
    words = _times(pull, d) - _times(pull * own, u)
    negatives = _times(push * other, n) - _times(push, d[:, :, None])
    documents = _times(weight.sum(-1), u) - jnp.sum(_times(weight, n), axis=2)
    documents -= _times(jnp.sum(weight * gap, axis=-1), d)
    return Steps(words, count), Steps(negatives, active), Steps(documents, count)


def joint_steps(margin: float, block: Block):
    """The steps of the paper: of x with the gradient g of the summed hinges, see `jose_sgd`.

    Where m - u.v - u.d + u'.v + u'.d > 0, g is -(v + d) for u, v + d for u', u' - u for v and d.
    For a single pair and negative these are the paper's; of more the gradients are added first.

    Returns:
      As `split_steps`.
    """
    u, v, d, n = block.words, block.contexts, block.documents, block.negatives
    wanted = jnp.einsum("bid,bjd->bij", u, v) + _dot(u, d)[:, :, None]
    against = _dot(n, (v + d)[:, :, None])
    active, of_negatives = jnp.zeros_like(wanted), []
    lost = total = jnp.zeros(())
    for k, pairs in enumerate(block.pairs):
        gap = wanted - against[:, None, :, k]
        own = (pairs & (gap < margin)).astype(gap.dtype)
        active, lost = active + own, lost + jnp.sum(own * (margin - gap))
        total += jnp.sum(pairs)
        of_negatives.append(own.sum(1))
    actives = jnp.stack(of_negatives, axis=-1)
    by_word, by_context = active.sum(2), active.sum(1)
    pushed = jnp.sum(_times(actives, n), axis=2)

    def step(x, gradient, count):
        along, _ = project_by_cosine().update(gradient, optax.EmptyState(), x)
        return Steps(-along, count)

    return (
        step(u, -jnp.einsum("bij,bjd->bid", active, v) - _times(by_word, d), by_word),
        step(v, pushed - jnp.einsum("bij,bid->bjd", active, u), by_context),
        step(n, _times(actives, (v + d)[:, :, None]), actives),
        step(d, pushed - _times(by_word, u), by_word),
        lost / jnp.maximum(total, 1),
    )


def _dot(x, y):
    return jnp.sum(x * y, axis=-1)


def _times(numbers, vectors):
    return numbers[..., None] * vectors


RULES = {"split": split_steps, "joint": joint_steps}
