"""The self-orthogonality module: filters whose answers have uncorrelated signs.

Zhang, Ma, Wu & Wang 2020 (arXiv 2001.01275); kexue.fm post 7169. For isotropic inputs x

    T_ij = E[sgn(x . w_i) sgn(x . w_j)] = 1 - 2 angle_ij / pi = (2 / pi) asin(cos_ij),

so that uncorrelated signs are orthogonal filters. T is estimated from a batch of answers
(`sign_correlations`) or computed from the filters (`arcsine_correlations`);
`self_orthogonality` is the penalty on either.
"""

import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require
from jaxgen.regularizers.orthogonality import pairwise_cosines


def sign_correlations(y, temperature=0.1):
    """T = Z^T Z for every pair i < j, Z = tanh((y - mean y) / tau), its columns at length one.

    Post 7169 has tau = 0.1 and no mean. The identity above needs inputs without a preferred
    direction; after a ReLU all of them lie in one orthant, every pair of answers is correlated,
    and the uncentred form pushes orthogonal filters apart from orthogonality. Centred over the
    batch it leaves them nearly alone.

    A statistic of the whole batch: means over micro-batches or shards of the penalty are not the
    penalty of the whole. Under `jit` on a sharded batch it is the global one.

    Args:
      y: [B, k], k >= 2, the layer's answers before its nonlinearity; for a convolution [B H W, k],
        or a random part of these rows.
      temperature: tau > 0, in the units of y. tau -> 0: the correlation of signs; tau >> |y|: the
        correlation of the answers themselves.

    Returns:
      [k (k - 1) / 2] in [-1, 1], in the order of `pairwise_cosines`. Uncorrelated answers have
      about 1 / sqrt(B) here, not 0. A unit whose answers are all the same has T = 0 and gradient
      0.

    Raises:
      ValueError: y is no matrix of two columns or more, or temperature <= 0.
    """
    require(above=0, temperature=temperature)
    if jnp.ndim(y) != 2 or jnp.shape(y)[0] < 1 or jnp.shape(y)[1] < 2:
        raise ValueError(f"sign_correlations: y {jnp.shape(y)}; expected [B, k] with k >= 2")
    y = at_least_f32(y)
    # Shifted first: the mean of equal numbers is off by a rounding error, which normalization
    # would blow up to a perfect correlation.
    y = y - y[:1]
    return pairwise_cosines(jnp.tanh((y - jnp.mean(y, axis=0, keepdims=True)) / temperature))


def arcsine_correlations(w):
    """T_ij = (2 / pi) asin(cos(w_i, w_j)) for every pair i < j: what isotropic inputs would give.

    The slope of asin is infinite at 1, so |cos| is clipped at 1 - 1e-6: |T| <= 0.9991, and columns
    that are closer to parallel get no gradient (exactly parallel ones have none to give).

    Args:
      w: [d, k], k >= 2, the filters in columns.

    Returns:
      [k (k - 1) / 2] in (-1, 1), in the order of `pairwise_cosines`.

    Raises:
      ValueError: w is no matrix of two columns or more.
    """
    most = 1 - 1e-6
    return 2 / jnp.pi * jnp.arcsin(jnp.clip(pairwise_cosines(w), -most, most))


def self_orthogonality(t, l1, l2):
    """l1 (mean T)^2 + l2 mean T^2, over the pairs i != j.

    Post 7169 has sums in place of the means, with l1 = 100 and l2 = 1, which grow with the fourth
    and the second power of the width. With n = k (k - 1) its l1 is n^2 times, and its l2 n times
    as much here.

    Args:
      t: [k (k - 1) / 2], T for every pair i < j; T_ji = T_ij makes it the mean over i != j.
      l1: weight of the squared mean, >= 0.
      l2: weight of the mean square, >= 0.

    Returns:
      Scalar.

    Raises:
      ValueError: t is no vector, or a weight is negative.
    """
    require(least=0, l1=l1, l2=l2)
    if jnp.ndim(t) != 1 or not jnp.size(t):
        raise ValueError(f"self_orthogonality: t {jnp.shape(t)}; expected a vector of pairs")
    t = at_least_f32(t)
    return l1 * jnp.mean(t) ** 2 + l2 * jnp.mean(jnp.square(t))
