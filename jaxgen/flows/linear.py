"""Linear bijectors over the last axis: actnorm, scaling, invertible 1x1 convolution, permutations.

They apply to [B, D] vectors and to [B, H, W, C] images. On images the same map W acts at every
position, so log|det J| = positions * log|det W|.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arguments import at_least_f32, require
from jaxgen.flows.bijector import Bijector, batched, constant_logdet

# TF32 and bf16 products are too inaccurate for inverse(forward(x)) = x.
_EXACT = jax.lax.Precision.HIGHEST


def _positions(x):
    return math.prod(x.shape[1:-1])


def _statistics(x, eps):
    """Mean, and standard deviation plus eps, per channel: [C] of vectors, [1, 1, C] of images.

    The second is 1 where a channel does not vary by more than eps or rounding.
    """
    x = at_least_f32(batched(x))
    if math.prod(x.shape[:-1]) < 2:
        raise ValueError(f"x {x.shape}; expected at least two values per channel")
    axes = tuple(range(x.ndim - 1))
    mean, std = jnp.mean(x, axes, keepdims=True)[0], jnp.std(x, axes, keepdims=True)[0]
    rounding = 16 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    return mean, jnp.where(std <= jnp.maximum(eps, rounding), 1, std + eps)


def _over(v, x):
    """A parameter of every channel for the batch x, in its dtype."""
    if v.shape != (1,) * (x.ndim - 2) + x.shape[-1:]:
        raise ValueError(f"x {x.shape}; expected {v.ndim + 1} axes and {v.shape[-1]} channels")
    return v.astype(x.dtype)[None]


def actnorm(eps: float = 1e-3) -> Bijector:
    """Activation normalisation: z = (x + shift) * exp(log_scale), per channel.

    Kingma & Dhariwal 2018, section 3.1 (arXiv 1807.03039). `init` sets shift and log_scale so that
    the output for its batch has mean 0 and standard deviation 1 per channel. Only `init` depends on
    data, so under `jit` over several devices the statistics are those of the global batch. (Common
    code does this inside the first training step of every replica.)

    Args:
      eps: added to the standard deviation, >= 0. A channel whose standard deviation is not above
        it, such as a constant one, is only shifted; the others are scaled by 1 / (2 eps) at most.

    Raises:
      ValueError: eps < 0; in `init`, fewer than two values per channel; in `forward` and `inverse`,
        an x of another rank or number of channels than in `init`.
    """
    require(least=0, eps=eps)

    def init(key, x, context=None):
        del key, context
        mean, scale = _statistics(x, eps)
        return {"shift": -mean, "log_scale": -jnp.log(scale)}

    def forward(params, x, context=None):
        del context
        x, shift, log_scale = batched(x), params["shift"], params["log_scale"]
        z = (x + _over(shift, x)) * _over(jnp.exp(log_scale), x)
        return z, constant_logdet(_positions(x) * jnp.sum(log_scale), x)

    def inverse(params, z, context=None):
        del context
        z, shift, log_scale = batched(z), params["shift"], params["log_scale"]
        x = z * _over(jnp.exp(-log_scale), z) - _over(shift, z)
        return x, constant_logdet(-_positions(z) * jnp.sum(log_scale), z)

    return Bijector(init, forward, inverse)


def scaling(eps: float = 1e-3) -> Bijector:
    """Diagonal scaling without shift: z = x * exp(log_scale).

    The last layer of NICE (Dinh et al. 2014, section 3.3, arXiv 1410.8516), where one factor per
    dimension determines how much each latent matters. `init` sets the standard deviation of its
    batch to 1, as in `actnorm`. With the usual initialisation near the identity, it takes thousands
    of updates to reach the scales of pixels that hardly vary.

    Args:
      eps: as in `actnorm`; a constant dimension is not scaled.

    Raises:
      ValueError: as in `actnorm`.
    """
    require(least=0, eps=eps)

    def init(key, x, context=None):
        del key, context
        return {"log_scale": -jnp.log(_statistics(x, eps)[1])}

    def forward(params, x, context=None):
        del context
        x, k = batched(x), params["log_scale"]
        return x * _over(jnp.exp(k), x), constant_logdet(_positions(x) * jnp.sum(k), x)

    def inverse(params, z, context=None):
        del context
        z, k = batched(z), params["log_scale"]
        return z * _over(jnp.exp(-k), z), constant_logdet(-_positions(z) * jnp.sum(k), z)

    return Bijector(init, forward, inverse)


def invertible_1x1() -> Bijector:
    """Invertible 1x1 convolution: z[..., :] = W x[..., :], W = P L (U + diag(exp(log_s))).

    Kingma & Dhariwal 2018, section 3.2, equation 10 (arXiv 1807.03039). L is unit lower and U
    strictly upper triangular, so log|det W| = sum log_s costs nothing, and W is invertible for any
    values of its parameters. P reverses the channels. In the paper P and the signs of the diagonal
    are drawn with W and must not be trained; here they are no parameters. W is initialised to a
    random orthogonal matrix Q by an LU decomposition with pivoting, Q = P' L U: the rows of Q are
    permuted by P' and then P, and signed so that the diagonal is positive. The inverse uses
    triangular solves, in full f32 precision on every device.

    Raises:
      ValueError: in `forward` and `inverse`, an x of another number of channels than in `init`.
    """

    def init(key, x, context=None):
        del context
        x = at_least_f32(batched(x))
        _, lower, upper = jax.scipy.linalg.lu(jax.random.orthogonal(key, x.shape[-1]))
        diagonal = jnp.diag(upper)
        sign = jnp.sign(diagonal)[:, None]
        params = {
            "lower": jnp.tril(sign * lower * sign.T, -1),
            "upper": jnp.triu(sign * upper, 1),
            "log_s": jnp.log(jnp.abs(diagonal)),
        }
        return jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)

    def factors(params, x):
        s = jnp.exp(params["log_s"])
        if x.shape[-1] != s.size:
            raise ValueError(f"x {x.shape}; expected {s.size} channels")
        lower = jnp.tril(params["lower"], -1) + jnp.eye(s.size, dtype=s.dtype)
        return lower, jnp.triu(params["upper"], 1) + jnp.diag(s)

    def forward(params, x, context=None):
        del context
        x = batched(x)
        w = jnp.flip(_matmul(*factors(params, x)), 0)
        return _apply(x, w.T), constant_logdet(_positions(x) * jnp.sum(params["log_s"]), x)

    def inverse(params, z, context=None):
        del context
        z = batched(z)
        lower, upper = factors(params, z)
        # Solving once for the C columns of P^T is far cheaper than solving for every pixel.
        p = jnp.flip(jnp.eye(z.shape[-1], dtype=lower.dtype), 0)
        w_inverse = jax.scipy.linalg.solve_triangular(lower, p, lower=True, unit_diagonal=True)
        w_inverse = jax.scipy.linalg.solve_triangular(upper, w_inverse)
        return _apply(z, w_inverse.T), constant_logdet(-_positions(z) * jnp.sum(params["log_s"]), z)

    return Bijector(init, forward, inverse)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=_EXACT)


def _apply(x, matrix):
    """x[..., :] @ matrix with the leading axes flattened (see `models.cpu.pointwise`)."""
    return _matmul(x.reshape(-1, x.shape[-1]), matrix.astype(x.dtype)).reshape(x.shape)


def shuffle(seed: int = 0) -> Bijector:
    """A fixed random permutation of the channels; logdet 0.

    It depends on the seed and on C alone and has no parameters. All layers of a `repeat` share it.
    It is one cycle of length C (Sattolo 1986), so within C layers every channel takes every place.

    Args:
      seed: of the permutation, >= 0.
    """
    require(least=0, seed=seed)

    def cycle(channels):
        order, rng = np.arange(channels), np.random.default_rng([seed, channels])
        for i in range(channels - 1, 0, -1):
            j = int(rng.integers(i))
            order[[i, j]] = order[[j, i]]
        return permutation(order)

    return Bijector(
        lambda key, x, context=None: (),
        lambda params, x, context=None: cycle(batched(x).shape[-1]).forward(params, x),
        lambda params, z, context=None: cycle(batched(z).shape[-1]).inverse(params, z),
    )


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
            x = batched(x)
            if x.shape[-1] != order.size:
                raise ValueError(f"x {x.shape}; expected {order.size} channels")
            return jnp.take(x, indices, -1, mode="clip", unique_indices=True), constant_logdet(0, x)

        return apply

    return Bijector(lambda key, x, context=None: (), take(order), take(np.argsort(order)))


def reversal() -> Bijector:
    """Reverse the last axis; logdet 0."""

    def flip(params, x, context=None):
        x = batched(x)
        return jnp.flip(x, -1), constant_logdet(0, x)

    return Bijector(lambda key, x, context=None: (), flip, flip)
