"""Linear bijectors over the last axis: actnorm, scaling, invertible 1x1 convolution, permutations.

They apply to [B, D] vectors and to [B, H, W, C] images. On images the same map W acts at every
position, so log|det J| = positions * log|det W|.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.flows.bijector import Bijector, Fixed, constant_logdet

# TF32 and bf16 products are too inaccurate for inverse(forward(x)) = x.
_EXACT = jax.lax.Precision.HIGHEST


def _positions(x):
    return math.prod(x.shape[1:-1])


def _init_dtype(x):
    """dtype of the parameters: at least f32, like those of the networks."""
    return jnp.promote_types(x.dtype, jnp.float32)


def actnorm(eps: float = 1e-3) -> Bijector:
    """Activation normalisation: z = (x + shift) * exp(log_scale), per channel.

    Kingma & Dhariwal 2018, section 3.1 (arXiv 1807.03039). `init` sets shift and log_scale so that
    the output for its batch has mean 0 and standard deviation 1 per channel. Only `init` depends on
    data, so under `jit` over several devices the statistics are those of the global batch. (Common
    code does this inside the first training step of every replica.)

    Args:
      eps: added to the standard deviation, so that a constant channel is scaled by 1/eps at most.
    """

    def init(key, x, context=None):
        del key, context
        x = x.astype(_init_dtype(x))
        axes = tuple(range(x.ndim - 1))
        mean, std = jnp.mean(x, axes), jnp.std(x, axes)
        return {"shift": -mean, "log_scale": -jnp.log(std + eps)}

    def forward(params, x, context=None):
        del context
        shift, log_scale = params["shift"], params["log_scale"]
        z = (x + _over(shift, x)) * _over(jnp.exp(log_scale), x)
        return z, constant_logdet(_positions(x) * jnp.sum(log_scale), x)

    def inverse(params, z, context=None):
        del context
        shift, log_scale = params["shift"], params["log_scale"]
        x = z * _over(jnp.exp(-log_scale), z) - _over(shift, z)
        return x, constant_logdet(-_positions(z) * jnp.sum(log_scale), z)

    return Bijector(init, forward, inverse)


def _over(v, x):
    """Reshapes a vector over channels to x's rank, in x's dtype."""
    return v.astype(x.dtype).reshape((1,) * (x.ndim - 1) + v.shape)


def scaling(eps: float = 1e-3) -> Bijector:
    """Diagonal scaling without shift: z = x * exp(log_scale).

    The last layer of NICE (Dinh et al. 2014, section 3.3, arXiv 1410.8516), where one factor per
    dimension determines how much each latent matters. `init` sets the standard deviation of its
    batch to 1, as in `actnorm`. With the usual initialisation near the identity, it takes thousands
    of updates to reach the scales of pixels that hardly vary.

    Args:
      eps: added to the standard deviation, so that a constant dimension is scaled by 1/eps at most.
    """

    def init(key, x, context=None):
        del key, context
        std = jnp.std(x.astype(_init_dtype(x)), tuple(range(x.ndim - 1)))
        return {"log_scale": -jnp.log(std + eps)}

    def forward(params, x, context=None):
        del context
        k = params["log_scale"]
        return x * _over(jnp.exp(k), x), constant_logdet(_positions(x) * jnp.sum(k), x)

    def inverse(params, z, context=None):
        del context
        k = params["log_scale"]
        return z * _over(jnp.exp(-k), z), constant_logdet(-_positions(z) * jnp.sum(k), z)

    return Bijector(init, forward, inverse)


def invertible_1x1() -> Bijector:
    """Invertible 1x1 convolution: z[..., :] = W x[..., :], W = P L (U + diag(sign * exp(log_s))).

    Kingma & Dhariwal 2018, section 3.2, equation 10 (arXiv 1807.03039). W is initialised to a
    random rotation. P and the signs keep their initial values (`Fixed`), L is unit lower and U
    strictly upper triangular, so log|det W| = sum log_s costs nothing and W can never become
    singular. The inverse uses triangular solves, in full f32 precision on every device.
    """

    def init(key, x, context=None):
        del context
        channels = x.shape[-1]
        rotation = jax.random.orthogonal(key, channels)
        p, lower, upper = jax.scipy.linalg.lu(rotation)
        s = jnp.diag(upper)
        params = {
            "permutation": Fixed(p),
            "sign": Fixed(jnp.sign(s)),
            "lower": jnp.tril(lower, -1),
            "upper": jnp.triu(upper, 1),
            "log_s": jnp.log(jnp.abs(s)),
        }
        return jax.tree.map(lambda leaf: leaf.astype(_init_dtype(x)), params)

    def factors(params):
        diagonal = jax.lax.stop_gradient(params["sign"].value) * jnp.exp(params["log_s"])
        lower = jnp.tril(params["lower"], -1) + jnp.eye(diagonal.size, dtype=diagonal.dtype)
        upper = jnp.triu(params["upper"], 1) + jnp.diag(diagonal)
        return jax.lax.stop_gradient(params["permutation"].value), lower, upper

    def forward(params, x, context=None):
        del context
        p, lower, upper = factors(params)
        w = _matmul(p, _matmul(lower, upper))
        return _apply(x, w.T), constant_logdet(_positions(x) * jnp.sum(params["log_s"]), x)

    def inverse(params, z, context=None):
        del context
        p, lower, upper = factors(params)
        # Solving once for the C columns of P^T is far cheaper than solving for every pixel.
        w_inverse = jax.scipy.linalg.solve_triangular(lower, p.T, lower=True, unit_diagonal=True)
        w_inverse = jax.scipy.linalg.solve_triangular(upper, w_inverse)
        return _apply(z, w_inverse.T), constant_logdet(-_positions(z) * jnp.sum(params["log_s"]), z)

    return Bijector(init, forward, inverse)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=_EXACT)


def _apply(x, matrix):
    """x[..., :] @ matrix with the leading axes flattened (see `models.cpu.pointwise`)."""
    return _matmul(x.reshape(-1, x.shape[-1]), matrix.astype(x.dtype)).reshape(x.shape)


def shuffle() -> Bijector:
    """A random permutation of the channels, drawn by `init` and never trained; logdet 0.

    Stored as a permutation matrix, so that `repeat` gives every layer its own.
    """

    def init(key, x, context=None):
        del context
        order = jax.random.permutation(key, x.shape[-1])
        return {"permutation": Fixed(jnp.eye(x.shape[-1], dtype=_init_dtype(x))[order])}

    def forward(params, x, context=None):
        del context
        p = jax.lax.stop_gradient(params["permutation"].value)
        return _apply(x, p.T), constant_logdet(0, x)

    def inverse(params, z, context=None):
        del context
        p = jax.lax.stop_gradient(params["permutation"].value)
        return _apply(z, p), constant_logdet(0, z)

    return Bijector(init, forward, inverse)


def permutation(order) -> Bijector:
    """A given permutation of the last axis: z[..., i] = x[..., order[i]]; logdet 0.

    Args:
      order: integers [C], a permutation of 0..C-1, known before tracing.

    Raises:
      ValueError: `order` is not a permutation of 0..C-1, or x does not have C channels.
    """
    order = np.asarray(order)
    if order.ndim != 1 or sorted(order.tolist()) != list(range(order.size)):
        raise ValueError(f"order {order.tolist()}; expected each of 0..C-1 once")

    def take(indices):
        def apply(params, x, context=None):
            if x.shape[-1] != order.size:
                raise ValueError(f"x {x.shape}; expected {order.size} channels")
            return jnp.take(x, indices, -1), constant_logdet(0, x)

        return apply

    return Bijector(lambda key, x, context=None: (), take(order), take(np.argsort(order)))


def reversal() -> Bijector:
    """Reverse the last axis; logdet 0."""

    def flip(params, x, context=None):
        return jnp.flip(x, -1), constant_logdet(0, x)

    return Bijector(lambda key, x, context=None: (), flip, flip)
