"""The self-orthogonality module: filters whose outputs have uncorrelated signs.

Zhang, Ma, Wu & Wang 2020 (arXiv 2001.01275); kexue.fm post 7169. For isotropic inputs x

    T_ij = E[sgn(x . w_i) sgn(x . w_j)] = 1 - 2 angle_ij / pi = (2 / pi) asin(cos_ij),

so the signs are uncorrelated iff the filters are orthogonal. T is estimated from a batch of
outputs (`sign_correlations`) or computed from the filters (`arcsine_correlations`);
`self_orthogonality` is the penalty on either.
"""

import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require, require_scalar
from jaxgen.regularizers.orthogonality import pairwise_cosines


def sign_correlations(y, temperature=0.1):
    """T_ij = z_i . z_j for every pair i < j, with z the unit columns of tanh((y - mean y) / tau).

    Post 7169 uses tau = 0.1 and does not subtract the mean. The identity above requires inputs
    without a preferred direction. After a ReLU all inputs lie in one orthant, so every pair of
    outputs is correlated, and the uncentred form pushes orthogonal filters away from orthogonality.
    The form centred over the batch leaves them nearly unchanged.

    This is a statistic of the whole batch: the mean of the penalty over micro-batches or shards is
    not the penalty of the batch. Under `jit` with a sharded batch it is the global statistic.

    Args:
      y: [B, k], k >= 2, the layer's outputs before its nonlinearity; for a convolution [B H W, k],
        or a random subset of these rows.
      temperature: tau > 0, in the units of y. tau -> 0 gives the correlation of the signs,
        tau >> |y| the correlation of the outputs themselves.

    Returns:
      [k (k - 1) / 2] in [-1, 1], in the order of `pairwise_cosines`. For uncorrelated outputs the
      estimate is about 1 / sqrt(B), not 0. A unit with constant output has T = 0 and gradient 0.

    Raises:
      ValueError: y is not a matrix of two columns or more, or temperature <= 0.
    """
    require(above=0, temperature=temperature)
    require_scalar(temperature=temperature)
    if jnp.ndim(y) != 2 or jnp.shape(y)[0] < 1 or jnp.shape(y)[1] < 2:
        raise ValueError(f"y {jnp.shape(y)}; expected [B, k] with k >= 2")
    y = at_least_f32(y)
    # Subtract the first row before the mean: the computed mean of equal numbers has a rounding
    # error, which normalization would amplify to a perfect correlation.
    y = y - y[:1]
    return pairwise_cosines(jnp.tanh((y - jnp.mean(y, axis=0, keepdims=True)) / temperature))


def arcsine_correlations(w):
    """T_ij = (2 / pi) asin(cos(w_i, w_j)) for every pair i < j: the value for isotropic inputs.

    The derivative of asin is infinite at 1, so |cos| is clipped at 1 - 1e-6. Hence |T| <= 0.9991,
    and columns closer to parallel than that get no gradient (for exactly parallel columns the
    gradient of the cosine is zero anyway).

    Args:
      w: [d, k], k >= 2, with filters as columns.

    Returns:
      [k (k - 1) / 2] in (-1, 1), in the order of `pairwise_cosines`.

    Raises:
      ValueError: w is not a matrix of two columns or more.
    """
    most = 1 - 1e-6
    return 2 / jnp.pi * jnp.arcsin(jnp.clip(pairwise_cosines(w), -most, most))


def self_orthogonality(t, l1, l2):
    """l1 (mean T)^2 + l2 mean T^2, over the pairs i != j.

    Post 7169 uses sums instead of means, with l1 = 100 and l2 = 1; these sums grow with the fourth
    and the second power of the width. With n = k (k - 1), multiply its l1 by n^2 and its l2 by n to
    get the same penalty here.

    Args:
      t: [k (k - 1) / 2], T for every pair i < j; as T_ji = T_ij, its mean is that over i != j.
      l1: weight of the squared mean, >= 0.
      l2: weight of the mean square, >= 0.

    Returns:
      Scalar.

    Raises:
      ValueError: t is not a vector or is empty, or a weight is negative.
    """
    require(least=0, l1=l1, l2=l2)
    require_scalar(l1=l1, l2=l2)
    if jnp.ndim(t) != 1 or not jnp.size(t):
        raise ValueError(f"t {jnp.shape(t)}; expected a vector of pairs")
    t = at_least_f32(t)
    return l1 * jnp.mean(t) ** 2 + l2 * jnp.mean(jnp.square(t))
