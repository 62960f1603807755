"""Penalties that pull the filters of a layer towards orthogonality, and measures of orthogonality.

W is always [d, k], and its k columns w_i are the filters. Pass a dense kernel as it is, convert a
convolution kernel with `filter_matrix`, and use `jax.vmap` for a stack of layers [n, d, k].

Of a convolution these control the filters, not the map from images to images: its shifted copies
of orthonormal filters overlap and need not be orthogonal. `convolution_orthogonality` controls it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import as_float, at_least_f32, require, require_scalar


def filter_matrix(kernel):
    """Reshapes a kernel to a matrix with one filter per column: [..., O] -> [d, O].

    Args:
      kernel: dense [I, O], convolution [H, W, I, O] or any other with outputs on the last axis.

    Returns:
      [d, O] in the kernel's dtype; d = H * W * I for a convolution. Orthonormal columns do not make
      the convolution orthogonal (see `convolution_orthogonality`).

    Raises:
      ValueError: kernel has fewer than two axes.
    """
    kernel = jnp.asarray(kernel)
    if kernel.ndim < 2:
        raise ValueError(f"kernel {kernel.shape}; expected [..., O], two axes or more")
    return kernel.reshape(-1, kernel.shape[-1])


def soft_orthogonality(w):
    """||W^T W - I||_F^2 for k <= d, and ||W W^T - I||_F^2 for k > d: the smaller Gram matrix.

    Xie et al. 2017 (arXiv 1703.01827); Bansal et al. 2018 (arXiv 1810.09102). The two
    norms differ by a constant, ||W^T W - I||_F^2 = ||W W^T - I||_F^2 + k - d, because both Gram
    matrices have the same trace and the same sum of squares. They have the same gradient,
    4 W (W^T W - I), so "double soft orthogonality", their sum, has twice the gradient of this
    penalty.

    Args:
      w: [d, k].

    Returns:
      Scalar, a sum over the entries. Zero iff the columns (k <= d) or the rows (k > d) are
      orthonormal; for the filters of a convolution this leaves its singular values free.

    Raises:
      ValueError: w is not a matrix.
    """
    w = _matrix(w)
    small = w if w.shape[1] <= w.shape[0] else w.T
    return jnp.sum(jnp.square(_gram(small) - jnp.eye(small.shape[1], dtype=w.dtype)))


def off_diagonal(w):
    """||W^T W o (1 - I)||_F^2 = sum_{i != j} (w_i . w_j)^2.

    Brock et al. 2018 (BigGAN, arXiv 1809.11096). The inner products are not normalised, so the
    penalty also shrinks the filters; `off_diagonal(unit_columns(w))` depends on the angles only.

    Args:
      w: [d, k].

    Returns:
      Scalar, in which each pair counts twice. Zero iff the columns are orthogonal, which for k > d
      is possible only if some columns are zero. It does not control the filters' lengths, nor a
      convolution as a whole.

    Raises:
      ValueError: w is not a matrix.
    """
    w = _matrix(w)
    return jnp.sum(jnp.square(_gram(w) * (1 - jnp.eye(w.shape[1], dtype=w.dtype))))


def mutual_coherence(w, temperature=0.1):
    """Smooth max_{i != j} |cos(w_i, w_j)| = tau log sum_{i < j} (e^{c_ij / tau} + e^{-c_ij / tau}).

    The mutual coherence of Donoho & Huo 2001, which Bansal et al. 2018 (arXiv 1810.09102) replace
    by max |W^T W - I|. A hard maximum has the gradient of a single pair. The log-sum-exp over c and
    -c smooths both |.| and the maximum, and spreads the gradient over all pairs within about tau of
    the largest.

    Args:
      w: [d, k], k >= 2.
      temperature: tau > 0. tau -> 0 gives the maximum; the overestimate is at most
        tau log(k (k - 1)). For tau >> 1 the gradient is that of the mean of c^2 / (2 tau).

    Returns:
      Scalar. For k > d no W has a maximum below sqrt((k - d) / (d (k - 1))) (Welch 1974). It does
      not control the filters' lengths, nor a convolution as a whole.

    Raises:
      ValueError: w is not a matrix of two columns or more, or temperature <= 0.
    """
    require(above=0, temperature=temperature)
    require_scalar(temperature=temperature)
    scores = pairwise_cosines(_matrix(w, columns=2)) / temperature
    return temperature * jax.nn.logsumexp(jnp.concatenate([scores, -scores]))


def srip(w, v):
    """Spectral restricted isometry: sigma(G - I) by power iteration, G the smaller Gram matrix.

        u = A v / ||A v||,  sigma = ||A u||,  A = G - I,  G = W^T W for k <= d, W W^T for k > d

    Bansal et al. 2018 (arXiv 1810.09102), who draw a new v in every step. Here the caller keeps v,
    so that it follows W and the estimate becomes exact as W converges. G is never formed: the cost
    is four products of W with a vector.

    The estimate is a lower bound, and a poor one while v is still random. The gradient flows only
    through A in sigma = ||A u||, with u held constant. A W that is orthonormal up to rounding,
    sigma <= 8 eps sqrt(d + k), has value and gradient 0; elsewhere the norm of the gradient is
    about 2 sqrt(1 + sigma), however small sigma is. The filters of a convolution may have sigma = 0
    while the singular values of the convolution are far from 1.

    Args:
      w: [d, k].
      v: [min(d, k)], unit length: `srip_vector` in the first step, then the returned vector.

    Returns:
      (sigma, scalar; the next v in v's dtype, without a gradient).

    Raises:
      ValueError: w is not a matrix, or v does not have the shape [min(d, k)].
    """
    w = _matrix(w)
    small = w if w.shape[1] <= w.shape[0] else w.T
    if jnp.shape(v) != small.shape[1:]:
        raise ValueError(f"v {jnp.shape(v)}; expected {small.shape[1:]} for w {w.shape}")

    def apply(x):
        return (
            jnp.matmul(small.T, jnp.matmul(small, x, precision="highest"), precision="highest") - x
        )

    def direction(x, otherwise):
        length = _norm(x)
        return jnp.where(length == 0, otherwise, x / jnp.where(length == 0, 1, length))

    start = at_least_f32(v)
    u = jax.lax.stop_gradient(direction(apply(start), start))
    image = apply(u)
    rounding = 8 * float(jnp.finfo(w.dtype).eps) * sum(w.shape) ** 0.5
    return _norm(image, rounding), jax.lax.stop_gradient(direction(image, u)).astype(
        as_float(v).dtype
    )


def srip_vector(key, w):
    """A random unit vector [min(d, k)] that starts the power iteration of `srip` for w [d, k].

    Raises:
      ValueError: w is not a matrix.
    """
    w = _matrix(w)
    v = jax.random.normal(key, (min(w.shape),), jnp.float32).astype(w.dtype)
    return v / _norm(v)


def unit_columns(w):
    """Normalises every column, w_i / ||w_i||; a zero column stays zero and has gradient zero.

    Args:
      w: [d, k].

    Returns:
      [d, k] in w's dtype, f32 for integers.

    Raises:
      ValueError: w is not a matrix.
    """
    return _unit(_matrix(w)).astype(as_float(w).dtype)


def pairwise_cosines(w):
    """cos(w_i, w_j) for every pair i < j, in the order (0, 1), (0, 2), ..., (1, 2), ...

    Args:
      w: [d, k], k >= 2.

    Returns:
      [k (k - 1) / 2]. A zero column has cosine 0 with every other column, and gradient 0.

    Raises:
      ValueError: w is not a matrix of two columns or more.
    """
    return _pairs(_gram(_unit(_matrix(w, columns=2))))


def pairwise_angles(w):
    """Angle between w_i and w_j for every pair i < j, in radians: arccos of `pairwise_cosines`.

    Use it as a metric, not as a loss: the derivative of arccos is infinite at parallel columns,
    where the gradient is set to zero, and f32 does not resolve angles below about 5e-4.

    Args:
      w: [d, k], k >= 2.

    Returns:
      [k (k - 1) / 2], in [0, pi].

    Raises:
      ValueError: w is not a matrix of two columns or more.
    """
    cosines = pairwise_cosines(w)
    parallel = jnp.abs(cosines) >= 1
    angles = jnp.arccos(jnp.where(parallel, 0, cosines))
    return jnp.where(parallel, jnp.where(cosines > 0, 0, jnp.pi), angles)


def _matrix(w, columns: int = 1):
    w = jnp.asarray(w)
    if w.ndim != 2 or w.shape[0] < 1 or w.shape[1] < columns:
        least = f" with k >= {columns}" if columns > 1 else ""
        raise ValueError(f"w {w.shape}; expected a matrix [d, k]{least}")
    return at_least_f32(w)


def _gram(w):
    # With TF32 or bf16 products, W^T W of an orthonormal W would be off by 1e-3.
    return jnp.matmul(w.T, w, precision="highest")


def _pairs(matrix):
    # numpy indices are compile-time constants, which halves the compile time.
    return matrix[np.triu_indices(matrix.shape[0], k=1)]


def _norm(x, least=0.0):
    """||x||; 0 with gradient 0 where it is at most `least`."""
    square = jnp.sum(jnp.square(x))
    none = square <= least**2
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, square)))


def _unit(w):
    # The result does not depend on the length of a column. Dividing by its largest entry first
    # keeps the squares from overflowing or underflowing; no gradient is needed through that.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(w), axis=0, keepdims=True))
    zero = largest == 0
    w = w / jnp.where(zero, 1, largest)
    square = jnp.sum(jnp.square(w), axis=0, keepdims=True)
    return jnp.where(zero, 0, w / jnp.sqrt(jnp.where(zero, 1, square)))
