"""Lower bounds on mutual information from a critic's scores of pairs.

scores[i, j] = T(x_i, y_j) for a batch of pairs (x_i, y_i) drawn jointly: the diagonal holds the
positive pairs, and the B (B - 1) other entries serve as independent draws. Leading axes (such as
the locations of a local Deep InfoMax) are batch axes. Each function returns [..., B], in nats and
at least f32; the mean over the last axis is the bound to maximize.
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32
from jaxgen.divergences.f_divergence import FDivergence


def f_information_bound(divergence: FDivergence, scores):
    """g_f(s_ii) - mean_{j != i} f*(g_f(s_ij)): bound on D_f(joint || product of marginals).

    With `kl()` it is the NWJ bound on I(X; Y), tight at s = 1 + log(p(x, y) / (p(x) p(y)))
    (Nguyen, Wainwright and Jordan 2010, arXiv 0809.0853). With `jensen_shannon()` it is the
    estimator of Deep InfoMax (Hjelm et al. 2019, arXiv 1808.06670, equation 4) plus the constant
    2 log 2. It is then at most 2 log 2 and does not estimate I(X; Y), but trains stably.

    Args:
      divergence: the f-divergence.
      scores: [..., B, B], raw, B >= 2.

    Returns:
      [..., B], one per row.

    Raises:
      ValueError: scores are not square, or B < 2.
    """
    scores = square_scores(scores)
    others = jnp.mean(divergence.composed_conjugate(_off_diagonal(scores)), axis=-1)
    return divergence.activation(_diagonal(scores)) - others


def donsker_varadhan_bound(scores):
    """I(X; Y) >= E_joint[T] - log E_product[exp T], tight at T = log(p(x, y) / (p(x) p(y))) + c.

    Donsker and Varadhan 1983; MINE (Belghazi et al. 2018, arXiv 1801.04062). The log term uses the
    mean over all B (B - 1) off-diagonal pairs: it is a statistic of the whole batch and the same in
    every entry returned. With few pairs the estimate is biased upwards.

    Args:
      scores: [..., B, B], B >= 2.

    Returns:
      [..., B]: s_ii - log mean_{j != k} exp(s_jk).

    Raises:
      ValueError: scores are not square, or B < 2.
    """
    scores = square_scores(scores)
    size = scores.shape[-1]
    total = jax.nn.logsumexp(_off_diagonal(scores), axis=(-2, -1), keepdims=True)[..., 0]
    return _diagonal(scores) - (total - math.log(size * (size - 1)))


def info_nce_bound(scores):
    """I(X; Y) >= mean_i log B + s_ii - logsumexp_j s_ij, each at most log B.

    van den Oord et al. 2018 (arXiv 1807.03748), in the form of Poole et al. 2019 (arXiv 1905.06922,
    equation 10), where the positive is one of the B candidates. The softmax is over each row; for
    the symmetric loss, average with the bound of the transposed scores. The cross-entropy is
    log B minus this.

    Args:
      scores: [..., B, B], B >= 2.

    Returns:
      [..., B], one per row.

    Raises:
      ValueError: scores are not square, or B < 2.
    """
    scores = square_scores(scores)
    log_size = math.log(scores.shape[-1])
    return log_size + _diagonal(scores) - jax.nn.logsumexp(scores, axis=-1)


def _diagonal(scores):
    return jnp.diagonal(scores, axis1=-2, axis2=-1)


def _off_diagonal(scores):
    """[..., B, B] -> [..., B, B - 1]: each row without its diagonal entry."""
    size = scores.shape[-1]
    flat = scores.reshape(*scores.shape[:-2], size * size)[..., 1:]
    # The first entry is dropped; then every (B + 1)-th entry of the flat matrix is diagonal.
    rows = flat.reshape(*scores.shape[:-2], size - 1, size + 1)[..., :-1]
    return rows.reshape(*scores.shape[:-2], size, size - 1)


def square_scores(scores):
    """Scores in at least f32; ValueError unless they are [..., B, B] with B >= 2."""
    scores = at_least_f32(scores)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2] or scores.shape[-1] < 2:
        raise ValueError(f"scores {scores.shape}; expected [..., B, B] with B >= 2")
    return scores
