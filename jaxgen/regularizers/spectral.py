"""Spectral normalization as a function of the parameters, independent of the network."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float, at_least_f32, require_integer


def spectral_vectors(key, params):
    """Random unit vectors to start `spectral_normalize` from.

    Args:
      key: a PRNG key, used once.
      params: pytree of arrays.

    Returns:
      A pytree like params: [O] in at least f32 for a kernel [..., O] of two or more axes; an empty
      vector for every other leaf, which marks it as not to be normalized.
    """
    leaves = jax.tree.leaves(params)

    def start(key, w):
        size = w.shape[-1] if w.ndim >= 2 else 0
        # Drawn in f32 for every dtype of w, so that the same key gives the same vectors.
        start = jax.random.normal(key, (size,), jnp.float32)
        return _unit(start.astype(jnp.promote_types(w.dtype, jnp.float32)))

    keys = jax.random.split(key, len(leaves))
    starts = [start(k, w) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), starts)


def spectral_normalize(params, vectors, iterations: int = 1):
    """W / sigma(W) for every kernel, with sigma the largest singular value of W as [rest, O].

    Miyato et al. 2018, algorithm 1 (SNGAN, arXiv 1802.05957): v = W u / |W u|, u = W^T v / |W^T v|,
    sigma = v^T W u. Gradients flow through W in sigma; u and v are constants. A convolution kernel
    is reshaped to a matrix, as in the paper; the norm of the convolution itself may be larger.

        normalized, vectors = spectral_normalize(params, vectors)

    Call it once per critic step and use the normalized parameters for the real batch, the fake
    batch and the penalty, so that the vectors advance once per step, by `iterations`. A step that
    should not advance them, such as the generator's, discards the returned vectors. In contrast,
    flax's `nn.SpectralNorm` wraps a layer and iterates at every call.

    Leaves with fewer than two axes (biases, scales) and kernels of zeros are not changed.

    Args:
      params: pytree of arrays; kernels have their outputs last.
      vectors: from `spectral_vectors`, or returned by the previous step.
      iterations: number of power iterations, >= 1.

    Returns:
      (params, vectors), of the same structure as the arguments; only params carry gradients.

    Raises:
      ValueError: iterations is not an integer >= 1, or a vector does not fit its kernel.
    """
    require_integer(least=1, iterations=iterations)

    def normalize(w, u):
        if not u.size:
            return w, u
        if u.shape != w.shape[-1:]:
            raise ValueError(f"vectors {u.shape}; expected {w.shape[-1:]} for a kernel {w.shape}")
        w = as_float(w)
        matrix = at_least_f32(w).reshape(-1, w.shape[-1])
        fixed = jax.lax.stop_gradient(matrix)
        for _ in range(iterations):
            v = _unit(_times(fixed, u))
            u = _unit(_times(v, fixed))
        sigma = jnp.sum(_times(v, matrix) * u)
        scale = jnp.where(sigma > 0, 1 / jnp.where(sigma > 0, sigma, 1), 1)
        return (w * scale).astype(w.dtype), u

    pairs = jax.tree.map(normalize, params, jax.lax.stop_gradient(vectors))
    return jax.tree.transpose(jax.tree.structure(params), jax.tree.structure((0, 0)), pairs)


def _unit(x):
    square = jnp.sum(x * x)
    return x * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def _times(a, b):
    # Full f32 even where the default is TF32, because sigma must bound the Lipschitz constant.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
