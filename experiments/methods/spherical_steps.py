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
    """A batch of blocks of L words, the vectors of their rows, and which of them meet.

    Attributes:
      tokens: numbers of the words, [B, L].
      drawn: numbers of random words, [B, L].
      pairs: whether position j is a context of the word at i, [B, L (i), L (j)].
      kept: whether the word meets its document, [B, L].
      words, contexts: u and v of each position, [B, L, d].
      documents: of the document of each position, [B, L, d].
      negatives: u' of the random words, [B, L, d].
    """

    tokens: Any
    drawn: Any
    pairs: Any
    kept: Any
    words: Any
    contexts: Any
    documents: Any
    negatives: Any


def split_steps(margin: float, document_margin: float, count: int, block: Block):
    """The steps of the authors' program, summed over pairs and negatives.

    Where m - f + h > 0 with f = u.v and h = u'.v, and t(x, y) = y - (x.y) x:

        u += (1 - f) t(u, v)     u' -= 2 h t(u', v)     v += (1 - f + h) t(v, u - u')

    and likewise with d for v, once for each word and negative of it. The word at i has `count`
    random words, those at i, i + L / count, i + 2 L / count, ...; one that is the word which it
    would meet, v's or the document's, is left out.

    Returns:
      `Steps` of words, contexts, negatives and documents, and the mean hinge of the documents.
    """
    u, v, n = block.words, block.contexts, block.negatives
    cosines = jnp.einsum("bid,bjd->bij", u, v)
    negative = jnp.einsum("bid,bjd->bij", n, v)
    # How many pairs pull or push, and by how much in sum: of words, and of random words.
    pulling = pulled = pushing = pushed = jnp.zeros_like(cosines)
    for ahead in _distances(count, block):
        pairs = block.pairs & (_from(block.drawn, ahead)[:, :, None] != block.tokens[:, None])
        gap = cosines - _from(negative, ahead)
        active = (pairs & (gap < margin)).astype(cosines.dtype)
        weight = active * (1 - gap)
        pulling, pulled = pulling + active, pulled + weight
        pushing, pushed = pushing + _from(active, -ahead), pushed + _from(weight, -ahead)
    pull, push = pulling * (1 - cosines), 2 * negative * pushing
    words = jnp.einsum("bij,bjd->bid", pull, v) - _times(jnp.sum(pull * cosines, axis=2), u)
    negatives = _times(jnp.sum(push * negative, axis=2), n) - jnp.einsum("bij,bjd->bid", push, v)
    contexts = jnp.einsum("bij,bid->bjd", pulled, u) - jnp.einsum("bij,bid->bjd", pushed, n)
    contexts -= _times(jnp.sum(pulled * cosines - pushed * negative, axis=1), v)

    more, others, documents, hinge = document_steps(document_margin, count, block)
    return (
        Steps(words + more.step, pulling.sum(2) + more.count),
        Steps(contexts, pulling.sum(1)),
        Steps(negatives + others.step, pushing.sum(2) + others.count),
        documents,
        hinge,
    )


def document_steps(margin: float, count: int, block: Block):
    """The part of `split_steps` between words and documents.

    Returns:
      `Steps` of words, negatives and documents, and the mean hinge.
    """
    u, d, n = block.words, block.documents, block.negatives
    own = _dot(u, d)
    active, weight, pushing = (jnp.zeros_like(own) for _ in range(3))
    against, negatives = jnp.zeros_like(d), jnp.zeros_like(n)
    lost = total = jnp.zeros(())
    for ahead in _distances(count, block):
        kept = block.kept & (_from(block.drawn, ahead) != block.tokens)
        random = _from(n, ahead)
        other = _dot(d, random)
        gap = own - other
        found = (kept & (gap < margin)).astype(gap.dtype)
        part = found * (1 - gap)
        active, weight = active + found, weight + part
        against += _times(part, random - _times(other, d))
        push = 2 * other * found
        negatives += _from(_times(push, _times(other, random) - d), -ahead)
        pushing += _from(found, -ahead)
        lost, total = lost + jnp.sum(found * (margin - gap)), total + jnp.sum(kept)
    words = _times(active * (1 - own), d - _times(own, u))
    documents = _times(weight, u - _times(own, d)) - against
    hinge = lost / jnp.maximum(total, 1)
    return Steps(words, active), Steps(negatives, pushing), Steps(documents, active), hinge


def joint_steps(margin: float, document_margin: float, count: int, block: Block):
    """The steps of the paper: of x with the gradient g of the summed hinges, see `jose_sgd`.

    Where m - u.v - u.d + u'.v + u'.d > 0, g is -(v + d) for u, v + d for u', u' - u for v and d.
    For a single pair and negative these are the paper's; of more the gradients are added first.
    There is one margin for both.

    Returns:
      As `split_steps`, with the mean of the one hinge.
    """
    u, v, d, n = block.words, block.contexts, block.documents, block.negatives
    wanted = jnp.einsum("bid,bjd->bij", u, v) + _dot(u, d)[:, :, None]
    against = jnp.einsum("bid,bjd->bij", n, v)
    pulling = pushing = jnp.zeros_like(wanted)
    documents, negatives = jnp.zeros_like(d), jnp.zeros_like(n)
    lost = total = jnp.zeros(())
    for ahead in _distances(count, block):
        pairs = block.pairs & (_from(block.drawn, ahead)[:, :, None] != block.tokens[:, None])
        random = _from(n, ahead)
        gap = wanted - _from(against, ahead) - _dot(d, random)[:, :, None]
        active = (pairs & (gap < margin)).astype(gap.dtype)
        pulling, pushing = pulling + active, pushing + _from(active, -ahead)
        lost, total = lost + jnp.sum(active * (margin - gap)), total + jnp.sum(pairs)
        of_word = active.sum(2)
        documents += _times(of_word, random - u)
        negatives += _from(_times(of_word, d), -ahead)
    words = -jnp.einsum("bij,bjd->bid", pulling, v) - _times(pulling.sum(2), d)
    negatives += jnp.einsum("bij,bjd->bid", pushing, v)
    contexts = jnp.einsum("bij,bid->bjd", pushing, n) - jnp.einsum("bij,bid->bjd", pulling, u)

    def step(x, gradient, count):
        along, _ = project_by_cosine().update(gradient, optax.EmptyState(), x)
        return Steps(-along, count)

    return (
        step(u, words, pulling.sum(2)),
        step(v, contexts, pulling.sum(1)),
        step(n, negatives, pushing.sum(2)),
        step(d, documents, pulling.sum(2)),
        lost / jnp.maximum(total, 1),
    )


def _distances(count: int, block: Block) -> list[int]:
    """How far ahead of a word its random words lie, in a circle of L places."""
    length = block.drawn.shape[1]
    return [k * length // count for k in range(count)]


def _from(x, ahead: int):
    """x at i + ahead for each place i, [B, L, ...]."""
    return jnp.roll(x, -ahead, axis=1)


def _dot(x, y):
    return jnp.sum(x * y, axis=-1)


def _times(numbers, vectors):
    return numbers[..., None] * vectors


RULES = {"split": split_steps, "joint": joint_steps}
