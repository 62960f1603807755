"""Spectral normalization as a function of parameters, apart from the network that uses them."""

import jax
import jax.numpy as jnp

from jaxgen.arguments import at_least_f32, require


def spectral_vectors(key, params):
    """Random unit vectors to start `spectral_normalize` from.

    Args:
      key: a PRNG key, used once.
      params: pytree of arrays.

    Returns:
      A pytree like params: [O] in at least f32 for a kernel [..., O] of two or more axes; for
      anything else [0], which says that it is left alone.
    """
    leaves = jax.tree.leaves(params)

    def start(key, w):
        size = w.shape[-1] if w.ndim >= 2 else 0
        # Drawn in f32 whatever w is: the same key gives the same vectors.
        start = jax.random.normal(key, (size,), jnp.float32)
        return _unit(start.astype(jnp.promote_types(w.dtype, jnp.float32)))

    keys = jax.random.split(key, len(leaves))
    starts = [start(k, w) for k, w in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), starts)


def spectral_normalize(params, vectors, iterations: int = 1):
    """W / sigma(W) for every kernel, sigma its largest singular value as a matrix [rest, O].

    Miyato et al. 2018, algorithm 1 (SNGAN, arXiv 1802.05957): v = W u / |W u|, u = W^T v / |W^T v|,
    sigma = v^T W u, where u and v count as constants and W does not. A convolution is its kernel
    reshaped, as in the paper; the norm of the map that it is may be larger.

    Parameters go in, parameters come out: call it once in a step of the critic and use the result
    for real, fake and penalty alike. The vectors then move once per step, by `iterations` (whoever
    does not move them, such as the generator's step, drops the new ones). flax's
    `nn.SpectralNorm` wraps layers instead, and iterates at every call.

        normalized, vectors = spectral_normalize(params, vectors)

    Biases and scales, of one axis, are left alone. So is a kernel of zeros.

    Args:
      params: pytree of arrays; kernels have their outputs last.
      vectors: from `spectral_vectors`, or of the step before.
      iterations: of the power method, >= 1.

    Returns:
      (params, vectors), like those that went in; gradients pass through params alone.

    Raises:
      ValueError: iterations < 1.
    """
    require(least=1, iterations=iterations)

    def normalize(w, u):
        if not u.size:
            return w, u
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
    # Full f32 also where the default is TF32: sigma bounds the slope.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
