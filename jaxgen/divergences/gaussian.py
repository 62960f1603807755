"""Closed-form divergences between Gaussians.

The diagonal versions take mean and log_std, [..., D] each, as a VAE encoder outputs them (log_var =
2 log_std). The `_full` versions take a mean [..., D] and a symmetric positive definite covariance
[..., D, D]. All return one number per example, [...], in at least f32.
"""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32

_LOG2 = 0.6931471805599453


def gaussian_kl(mean_p, log_std_p, mean_q, log_std_q):
    """KL(P || Q) = sum log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2, in nats.

    Args:
      mean_p: [..., D].
      log_std_p: [..., D].
      mean_q: [..., D].
      log_std_q: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    mean_p, log_std_p, mean_q, log_std_q = _diagonal(
        mean_p=mean_p, log_std_p=log_std_p, mean_q=mean_q, log_std_q=log_std_q
    )
    distance = (mean_p - mean_q) * jnp.exp(-log_std_q)
    return jnp.sum(_spread(log_std_p - log_std_q) + 0.5 * distance**2, axis=-1)


def gaussian_kl_to_standard(mean, log_std):
    """KL(N(mean, std^2) || N(0, I)) = 1/2 sum (mean^2 + std^2 - 1 - 2 log std), in nats.

    Kingma and Welling 2014 (arXiv 1312.6114, appendix B).

    Args:
      mean: [..., D].
      log_std: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    mean, log_std = _diagonal(mean=mean, log_std=log_std)
    return jnp.sum(0.5 * mean**2 + _spread(log_std), axis=-1)


def gaussian_jeffreys(mean_p, log_std_p, mean_q, log_std_q):
    """KL(P || Q) + KL(Q || P), in nats, on the same scale as `jeffreys`.

    sum 2 sinh^2(log s_p - log s_q) + (m_p - m_q)^2 (1 / s_p^2 + 1 / s_q^2) / 2.

    Args:
      mean_p: [..., D].
      log_std_p: [..., D].
      mean_q: [..., D].
      log_std_q: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    mean_p, log_std_p, mean_q, log_std_q = _diagonal(
        mean_p=mean_p, log_std_p=log_std_p, mean_q=mean_q, log_std_q=log_std_q
    )
    distance = mean_p - mean_q
    scaled = (distance * jnp.exp(-log_std_p)) ** 2 + (distance * jnp.exp(-log_std_q)) ** 2
    return jnp.sum(2 * jnp.sinh(log_std_p - log_std_q) ** 2 + 0.5 * scaled, axis=-1)


def gaussian_bhattacharyya(mean_p, log_std_p, mean_q, log_std_q):
    """Bhattacharyya distance -log int sqrt(p q).

    sum (m_p - m_q)^2 / (4 (s_p^2 + s_q^2)) + 1/2 log((s_p^2 + s_q^2) / (2 s_p s_q)). The squared
    Hellinger distance on the scale of `squared_hellinger` is 2 (1 - exp(-this)).

    Args:
      mean_p: [..., D].
      log_std_p: [..., D].
      mean_q: [..., D].
      log_std_q: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    mean_p, log_std_p, mean_q, log_std_q = _diagonal(
        mean_p=mean_p,
        log_std_p=log_std_p,
        mean_q=mean_q,
        log_std_q=log_std_q,
    )
    log_ratio = log_std_p - log_std_q
    log_sum = jnp.logaddexp(2 * log_std_p, 2 * log_std_q)
    apart = 0.25 * ((mean_p - mean_q) * jnp.exp(-0.5 * log_sum)) ** 2
    # log cosh; through sinh near 0, where logaddexp - log 2 would cancel.
    near = jnp.abs(log_ratio) < 1
    small = 0.5 * jnp.log1p(jnp.sinh(jnp.where(near, log_ratio, 0)) ** 2)
    spread = jnp.where(near, small, jnp.logaddexp(log_ratio, -log_ratio) - _LOG2)
    return jnp.sum(apart + 0.5 * spread, axis=-1)


def gaussian_squared_hellinger(mean_p, log_std_p, mean_q, log_std_q):
    """int (sqrt p - sqrt q)^2 = 2 (1 - int sqrt(p q)), in [0, 2]; some authors halve it.

    Args:
      mean_p: [..., D].
      log_std_p: [..., D].
      mean_q: [..., D].
      log_std_q: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    arguments = _diagonal(
        mean_p=mean_p,
        log_std_p=log_std_p,
        mean_q=mean_q,
        log_std_q=log_std_q,
    )
    return -2 * jnp.expm1(-gaussian_bhattacharyya(*arguments))


def gaussian_squared_wasserstein(mean_p, log_std_p, mean_q, log_std_q):
    """W_2^2 = sum (m_p - m_q)^2 + (s_p - s_q)^2.

    Args:
      mean_p: [..., D].
      log_std_p: [..., D].
      mean_q: [..., D].
      log_std_q: [..., D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes differ.
    """
    mean_p, log_std_p, mean_q, log_std_q = _diagonal(
        mean_p=mean_p,
        log_std_p=log_std_p,
        mean_q=mean_q,
        log_std_q=log_std_q,
    )
    wider = log_std_p > log_std_q
    wide = jnp.where(wider, log_std_p, log_std_q)
    narrow = jnp.where(wider, log_std_q, log_std_p)
    spread = jnp.exp(wide) * jnp.expm1(narrow - wide)
    return jnp.sum((mean_p - mean_q) ** 2 + spread**2, axis=-1)


def gaussian_kl_full(mean_p, covariance_p, mean_q, covariance_q):
    """KL(P || Q) = 1/2 (tr(C_q^-1 C_p) + |L_q^-1 (m_p - m_q)|^2 - D + log det C_q / det C_p).

    Computed from the Cholesky factors C = L L^T, as sums of terms >= 0; for nearly equal laws from
    the difference C_p - C_q. NaN if a covariance is not positive definite.

    Args:
      mean_p: [..., D].
      covariance_p: [..., D, D].
      mean_q: [..., D].
      covariance_q: [..., D, D].

    Returns:
      [...], nats.

    Raises:
      ValueError: the shapes do not match.
    """
    mean_p, chol_p, mean_q, chol_q = _full(mean_p, covariance_p, mean_q, covariance_q)
    distance = _solve(chol_q, (mean_p - mean_q)[..., None])[..., 0]
    change = at_least_f32(covariance_p) - at_least_f32(covariance_q)
    ratio, near = _cholesky_change(chol_p, chol_q, change)
    diagonal = jnp.diagonal(ratio, axis1=-2, axis2=-1)
    far = _log_diagonal(chol_p) - _log_diagonal(chol_q)
    log_ratio = jnp.where(near, jnp.log1p(jnp.where(near, diagonal, 0)), far)
    squares = jnp.sum(jnp.tril(ratio, -1) ** 2, axis=(-2, -1)) + jnp.sum(distance**2, axis=-1)
    return 0.5 * squares + jnp.sum(_spread(log_ratio), axis=-1)


def _cholesky_change(chol_p, chol_q, change):
    """E = L_q^-1 L_p - I, lower triangular, and [..., 1] whether C_p and C_q are nearly equal.

    E solves E + E^T + E E^T = A = L_q^-1 (C_p - C_q) L_q^-T. Where A is small, a Newton step
    removes the rounding of the Cholesky factors, which is not small beside E.
    """
    half = _solve(chol_q, jnp.swapaxes(change, -2, -1))
    target = _solve(chol_q, jnp.swapaxes(half, -2, -1))
    near = jnp.sum(target**2, axis=(-2, -1), keepdims=True) < 0.04
    eye = jnp.broadcast_to(jnp.eye(change.shape[-1], dtype=change.dtype), change.shape)
    e = jnp.tril(_solve(chol_q, chol_p)) - eye
    transposed = jnp.swapaxes(e, -2, -1)
    left = target - e - transposed - jnp.matmul(e, transposed, precision="highest")
    return e + jnp.where(near, jnp.tril(left, -1) + 0.5 * left * eye, 0), near[..., 0]


def gaussian_squared_wasserstein_full(mean_p, covariance_p, mean_q, covariance_q):
    """W_2^2 = |m_p - m_q|^2 + tr(C_p + C_q - 2 (C_p^1/2 C_q C_p^1/2)^1/2).

    The trace of the root is computed as the sum of the singular values of L_p^T L_q, with Cholesky
    factors C = L L^T. No square root of an eigenvalue is taken, so the gradient is finite when
    eigenvalues coincide or P = Q. The rounding error is about eps tr(C), so the result may be
    slightly negative. NaN if a covariance is not positive definite.

    Args:
      mean_p: [..., D].
      covariance_p: [..., D, D].
      mean_q: [..., D].
      covariance_q: [..., D, D].

    Returns:
      [...].

    Raises:
      ValueError: the shapes do not match.
    """
    mean_p, chol_p, mean_q, chol_q = _full(mean_p, covariance_p, mean_q, covariance_q)
    cross = jnp.matmul(jnp.swapaxes(chol_p, -2, -1), chol_q, precision=jax.lax.Precision.HIGHEST)
    overlap = jnp.sum(jnp.linalg.svd(cross, compute_uv=False), axis=-1)
    traces = jnp.sum(chol_p**2 + chol_q**2, axis=(-2, -1))
    return jnp.sum((mean_p - mean_q) ** 2, axis=-1) + traces - 2 * overlap


@jax.custom_jvp
def _spread(r):
    """(exp(2 r) - 1) / 2 - r = expm1(r) sinh(r) + (sinh(r) - r), without cancellation near 0."""
    near = jnp.abs(r) < 1
    x = jnp.where(near, r, 0)
    series = jnp.ones_like(r)
    for k in range(17, 3, -2):  # sinh x - x = x^3 / 3! (1 + x^2 / (4 5) (1 + x^2 / (6 7) (...)))
        series = 1 + x * x / (k * (k - 1)) * series
    close = jnp.expm1(x) * jnp.sinh(x) + x**3 / 6 * series
    return jnp.where(near, close, 0.5 * jnp.expm1(2 * r) - r)


@_spread.defjvp
def _(primals, tangents):
    (r,), (change,) = primals, tangents
    return _spread(r), jnp.expm1(2 * r) * change


def _solve(factor, x):
    return jax.lax.linalg.triangular_solve(factor, x, left_side=True, lower=True)


def _log_diagonal(matrix):
    return jnp.log(jnp.diagonal(matrix, axis1=-2, axis2=-1))


def _diagonal(**arguments):
    arrays = {name: at_least_f32(x) for name, x in arguments.items()}
    first, shape = next((name, x.shape) for name, x in arrays.items())
    for name, x in arrays.items():
        if x.shape != shape or x.ndim == 0:
            raise ValueError(f"{name} {x.shape}; expected the shape of {first} {shape}, [..., D]")
    return arrays.values()


def _full(mean_p, covariance_p, mean_q, covariance_q):
    """Returns the arguments in at least f32, the covariances replaced by Cholesky factors."""
    mean_p, covariance_p, mean_q, covariance_q = (
        at_least_f32(x) for x in (mean_p, covariance_p, mean_q, covariance_q)
    )
    square = (*mean_p.shape, mean_p.shape[-1]) if mean_p.ndim else ()
    for name, x, shape in (
        ("covariance_p", covariance_p, square),
        ("mean_q", mean_q, mean_p.shape),
        ("covariance_q", covariance_q, square),
    ):
        if x.shape != shape or x.ndim == 0:
            raise ValueError(
                f"{name} {x.shape}; expected {shape} for mean_p {mean_p.shape}, [..., D]"
            )
    return mean_p, jnp.linalg.cholesky(covariance_p), mean_q, jnp.linalg.cholesky(covariance_q)
