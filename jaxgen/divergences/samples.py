"""Distances between two samples: maximum mean discrepancy, energy, (sliced) Wasserstein.

Each is a statistic of the whole batch: it takes x [N, D] and y [M, D] and returns a scalar in at
least f32. For a sharded batch, `jit` over the global arrays gives the global distance.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import at_least_f32, require, require_integer, require_scalar


def squared_distances(x, y):
    """|x_i - y_j|^2, computed from the differences rather than |x|^2 - 2 x y + |y|^2.

    Never negative, exactly 0 for equal points, and equally precise far from the origin. XLA fuses
    the sum, so the [N, M, D] differences are not stored, but for large D it is slower than a
    matrix product. The gradient uses matrix products in full f32 (not TF32) of the centered points.

    Args:
      x: [N, D].
      y: [M, D].

    Returns:
      [N, M].

    Raises:
      ValueError: x and y are not [N, D] and [M, D], or are empty.
    """
    x, y = _points(x, y)
    return _squared_distances(x, y)


@jax.custom_jvp
def _squared_distances(x, y):
    # The barrier keeps XLA from sharing (and so storing) the [N, M, D] differences between calls.
    x, y = jax.lax.optimization_barrier((x, y))
    return jnp.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=-1)


@_squared_distances.defjvp
def _(primals, tangents):
    """2 (x_i - y_j) . (dx_i - dy_j) as matrix products; XLA would store the differences here."""
    (x, y), (dx, dy) = primals, tangents
    center = jax.lax.stop_gradient(jnp.mean(jnp.concatenate([x, y]), axis=0, keepdims=True))
    x, y = x - center, y - center
    mixed = _product(dx, y) + _product(x, dy)
    own_x, own_y = jnp.sum(x * dx, axis=1)[:, None], jnp.sum(y * dy, axis=1)[None, :]
    return _squared_distances(*primals), 2 * (own_x + own_y - mixed)


def _product(x, y):
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def rbf_kernel(bandwidth) -> Callable:
    """k(x, y) = sum_s exp(-|x - y|^2 / (2 s^2)), summed over the bandwidths s.

    Args:
      bandwidth: s > 0, in units of x; a number, or an array of any shape to sum over.

    Returns:
      (x [N, D], y [M, D]) -> [N, M].

    Raises:
      ValueError: a bandwidth is <= 0, or there is none.
    """
    require(above=0, bandwidth=bandwidth)
    if 0 in np.shape(bandwidth):
        raise ValueError(f"bandwidth {bandwidth}; expected at least one number > 0")

    def kernel(x, y):
        squared = squared_distances(x, y)[..., None]
        widths = jnp.ravel(jnp.asarray(bandwidth, squared.dtype))[None, None, :]
        return jnp.sum(jnp.exp(-0.5 * squared / widths**2), axis=-1)

    return kernel


def polynomial_kernel(degree: int = 3, center=None) -> Callable:
    """k(x, y) = (x . y / D + 1)^degree; KID uses degree 3.

    Binkowski et al. 2018 (arXiv 1801.01401). Computed in full f32 (not TF32).

    With a center c it is k(x, y) - k(x, c) - k(c, y) + k(c, c), which has the same MMD for any c.
    It is computed without the terms that cancel, so that with c near the samples, such as their
    common mean, the MMD keeps its digits far from the origin.

    Args:
      degree: an integer >= 1.
      center: [D], or None for the plain kernel; no gradient flows to it.

    Returns:
      (x [N, D], y [M, D]) -> [N, M].

    Raises:
      ValueError: degree is not an integer >= 1, or center is not [D].
    """
    require_integer(least=1, degree=degree)

    def kernel(x, y):
        x, y = _points(x, y)
        if center is None:
            return (_product(x, y) / x.shape[1] + 1) ** degree
        c = jax.lax.stop_gradient(at_least_f32(center))
        if c.shape != x.shape[1:]:
            raise ValueError(f"center {c.shape}; expected [D] for x [N, D] {x.shape}")
        return _centered_power(x - c[None, :], y - c[None, :], c, degree)

    return kernel


def _centered_power(x, y, c, degree):
    """t^n - (a + e)^n - (a + f)^n + a^n with t = a + e + f + k, by a recursion over n.

    a = |c|^2 / D + 1, e = c . x / D, f = c . y / D, k = x . y / D.
    """
    dimensions = x.shape[1]
    a = jnp.sum(c * c) / dimensions + 1
    e = jnp.sum(x * c[None, :], axis=1)[:, None] / dimensions
    f = jnp.sum(y * c[None, :], axis=1)[None, :] / dimensions
    k = _product(x, y) / dimensions
    total, of_e, of_f = k * 0, e * 0, f * 0  # of degree 0; of_e = (a + e)^n - a^n
    for n in range(degree):
        power = (a + e + f + k) ** n
        total = (a + e + f) * total + e * of_f + f * of_e + k * power
        of_e, of_f = (a + e) * of_e + e * a**n, (a + f) * of_f + f * a**n
    return total


def energy_kernel() -> Callable:
    """k(x, y) = -|x - y|, conditionally positive definite; the gradient at x = y is 0.

    Its squared MMD is the energy distance (Sejdinovic et al. 2013, arXiv 1207.6076).

    Returns:
      (x [N, D], y [M, D]) -> [N, M].
    """

    def kernel(x, y):
        squared = squared_distances(x, y)
        same = squared == 0
        return -jnp.where(same, 0, jnp.sqrt(jnp.where(same, 1, squared)))

    return kernel


def squared_mmd(kernel, x, y):
    """MMD^2 as a V-statistic: mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over all pairs.

    Gretton et al. 2012, Journal of Machine Learning Research 13, equation 5. This is the squared
    distance between the two empirical distributions: >= 0, and 0 if they are equal. As an estimate
    for the underlying distributions it is biased upwards by O(1/N + 1/M).

    Args:
      kernel: (x [N, D], y [M, D]) -> [N, M].
      x: [N, D].
      y: [M, D].

    Returns:
      a scalar.

    Raises:
      ValueError: x and y are not [N, D] and [M, D] or are empty, or the kernel's result not [N, M].
    """
    x, y = _points(x, y)
    within = jnp.mean(_pairwise(kernel, x, x)) + jnp.mean(_pairwise(kernel, y, y))
    return within - 2 * jnp.mean(_pairwise(kernel, x, y))


def squared_mmd_unbiased(kernel, x, y):
    """MMD^2 as a U-statistic: means within a sample are over i != j; may be negative.

    Gretton et al. 2012, Journal of Machine Learning Research 13, lemma 6. With
    `polynomial_kernel()` on Inception features it is KID (arXiv 1801.01401); see its `center` for
    features with a large mean.

    Args:
      kernel: (x [N, D], y [M, D]) -> [N, M].
      x: [N, D], N >= 2.
      y: [M, D], M >= 2.

    Returns:
      a scalar, an unbiased estimate of the squared MMD of the two distributions.

    Raises:
      ValueError: fewer than 2 samples, or x and y are not [N, D] and [M, D].
    """
    x, y = _points(x, y)
    if min(len(x), len(y)) < 2:
        name, few = ("x", x) if len(x) < 2 else ("y", y)
        raise ValueError(f"{name} {few.shape}; expected at least 2 samples")

    def within(x):
        n = len(x)
        others = jnp.where(jnp.eye(n, dtype=bool), 0, _pairwise(kernel, x, x))
        return jnp.sum(others) / (n * (n - 1))

    return within(x) + within(y) - 2 * jnp.mean(_pairwise(kernel, x, y))


def _pairwise(kernel, x, y):
    table = kernel(x, y)
    if jnp.shape(table) != (len(x), len(y)):
        raise ValueError(f"kernel {jnp.shape(table)}; expected [N, M] = {(len(x), len(y))}")
    return table


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of the empirical distributions, >= 0.

    A V-statistic. Szekely and Rizzo 2013, Journal of Statistical Planning and Inference 143. It is
    a squared metric: scipy.stats.energy_distance is its square root.

    Args:
      x: [N, D].
      y: [M, D].

    Returns:
      a scalar; the gradient at coinciding points is finite.

    Raises:
      ValueError: x and y are not [N, D] and [M, D], or are empty.
    """
    x, y = _points(x, y)
    return squared_mmd(energy_kernel(), x, y)


def wasserstein_1d(x, y, p=1):
    """W_p^p = int_0^1 |F_x^-1(s) - F_y^-1(s)|^p ds between empirical distributions on the line.

    Exact for any N and M: the quantile functions are step functions, so the integral is a sum over
    the union of their breakpoints (for N = M, over the sorted pairs). The p-th root is not taken,
    because it has no gradient at 0. For p = 1 this is scipy.stats.wasserstein_distance.

    Args:
      x: [..., N].
      y: [..., M], the same leading shape.
      p: a Python number >= 1.

    Returns:
      [...].

    Raises:
      ValueError: p < 1, the leading shapes differ, or x or y is empty or a scalar.
    """
    require(least=1, p=p)
    require_scalar(p=p)
    x, y = at_least_f32(x), at_least_f32(y)
    if x.ndim == 0 or y.ndim == 0 or x.shape[:-1] != y.shape[:-1] or 0 in (*x.shape, *y.shape):
        raise ValueError(f"y {y.shape}; expected [..., M] for x [..., N] {x.shape}")
    n, m = x.shape[-1], y.shape[-1]
    # In units of 1 / (n m), as integers, so that shared breakpoints are exactly equal.
    breaks = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    left, weight = breaks[:-1], np.diff(breaks) / (n * m)
    gap = jnp.sort(x, axis=-1)[..., left // m] - jnp.sort(y, axis=-1)[..., left // n]
    size = gap * jnp.sign(gap)  # |gap| with gradient 0, not 1, at 0
    return jnp.matmul(size**p, weight.astype(gap.dtype), precision="highest")


def sliced_wasserstein(key, x, y, *, projections: int = 128, p=2):
    """SW_p^p = mean over random directions d of W_p^p(d . x, d . y).

    Bonneel et al. 2015, Journal of Mathematical Imaging and Vision 51. The p-th root is not taken,
    as in `wasserstein_1d`. For p = 2 and y = x + a it tends to |a|^2 / D.

    Args:
      key: a PRNG key, used once.
      x: [N, D].
      y: [M, D].
      projections: number of directions, uniform on the unit sphere, >= 1.
      p: a Python number >= 1.

    Returns:
      a scalar.

    Raises:
      ValueError: p < 1, projections < 1, or x and y are not [N, D] and [M, D].
    """
    require_integer(least=1, projections=projections)
    require(least=1, p=p)
    x, y = _points(x, y)
    # Drawn in f32, so that a key gives the same directions for every dtype of x.
    directions = jax.random.normal(key, (projections, x.shape[1]), jnp.float32).astype(x.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)

    return jnp.mean(wasserstein_1d(_product(directions, x), _product(directions, y), p))


def _points(x, y):
    x, y = at_least_f32(x), at_least_f32(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise ValueError(f"y {y.shape}; expected [M, D] for x [N, D] {x.shape}")
    return x, y
