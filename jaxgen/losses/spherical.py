"""JoSE, spherical text embeddings (Meng et al. 2019, arXiv 1911.01196): hinges of cosines.

A word u and a word v in its window, both in a document d, and a random word u', all unit vectors:

    cosines = dot(u, v), dot(u, d), dot(negative, v), dot(negative, d)
    loss = joint_hinge_loss(*cosines)       # the paper's
    terms = split_hinge_loss(*cosines)      # what its C program minimises
"""

from typing import NamedTuple

import jax

from jaxgen.arguments import at_least_f32, require_scalar
from jaxgen.losses.adversarial import positive_part


class SplitHingeTerms(NamedTuple):
    """The two terms of `split_hinge_loss`, [...] each.

    Attributes:
      word: max(0, m - u.v + u'.v).
      document: max(0, m - u.d + u'.d).
    """

    word: jax.Array
    document: jax.Array


def joint_hinge_loss(word, document, negative_word, negative_document, margin=0.15):
    """max(0, m - u.v - u.d + u'.v + u'.d), one hinge for words and documents (the paper's eq. 4).

    Args:
      word: cosines u.v of a word and a word in its window, [...].
      document: cosines u.d of the word and its document, [...].
      negative_word: cosines u'.v of a random word u', [...].
      negative_document: cosines u'.d, [...].
      margin: m, a number in (0, 2) usually; the paper has 0.15.

    Returns:
      [...], at least 0; at most m + 4 for unit vectors.

    Raises:
      ValueError: the shapes differ, or margin is no scalar.
    """
    cosines = _cosines(word, document, negative_word, negative_document)
    word, document, negative_word, negative_document = cosines
    apart = word + document - negative_word - negative_document
    return positive_part(_scalar(margin) - apart)


def split_hinge_loss(
    word, document, negative_word, negative_document, margin=0.15
) -> SplitHingeTerms:
    """max(0, m - u.v + u'.v) and max(0, m - u.d + u'.d): the two hinges of the authors' program.

    Args:
      word: cosines u.v of a word and a word in its window, [...].
      document: cosines u.d of the word and its document, [...].
      negative_word: cosines u'.v of a random word u', [...].
      negative_document: cosines u'.d, [...].
      margin: m, as of `joint_hinge_loss`.

    Returns:
      Terms of [...], at least 0.

    Raises:
      ValueError: the shapes differ, or margin is no scalar.
    """
    cosines = _cosines(word, document, negative_word, negative_document)
    word, document, negative_word, negative_document = cosines
    margin = _scalar(margin)
    return SplitHingeTerms(
        positive_part(margin - word + negative_word),
        positive_part(margin - document + negative_document),
    )


def _scalar(margin):
    require_scalar(margin=margin)
    return margin


def _cosines(*cosines):
    cosines = tuple(at_least_f32(x) for x in cosines)
    if len({x.shape for x in cosines}) > 1:
        shapes = ", ".join(str(x.shape) for x in cosines)
        raise ValueError(
            f"word, document, negative_word, negative_document {shapes}; expected equal shapes"
        )
    return cosines
