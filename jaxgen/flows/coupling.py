"""Coupling layers: one part of x determines how the other part is transformed.

Dinh et al. 2014 (NICE, arXiv 1410.8516), 2017 (RealNVP, arXiv 1605.08803).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import require
from jaxgen.flows.bijector import Bijector, batched, sum_event


class Split(NamedTuple):
    """A split of x into two parts; both functions only rearrange elements.

    Attributes:
      divide: x -> (fixed, moved).
      merge: (fixed, moved) -> x, the inverse of `divide`.
    """

    divide: Callable[..., Any]
    merge: Callable[..., Any]


def halves() -> Split:
    """First half of the last axis fixed, second half moved (the larger one if C is odd)."""
    return Split(
        lambda x: tuple(jnp.split(x, [x.shape[-1] // 2], axis=-1)),
        lambda fixed, moved: jnp.concatenate([fixed, moved], axis=-1),
    )


def even_odd() -> Split:
    """Even indices of the last axis fixed, odd indices moved (NICE). Its length must be even."""

    def divide(x):
        if x.shape[-1] % 2:
            raise ValueError(f"last axis of {x.shape} is odd; expected an even one")
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        return pairs[..., 0], pairs[..., 1]

    def merge(fixed, moved):
        return jnp.stack([fixed, moved], axis=-1).reshape(*fixed.shape[:-1], -1)

    return Split(divide, merge)


def checkerboard() -> Split:
    """White squares ((h + w) even) of [B, H, W, C] fixed, black squares moved (RealNVP).

    W must be even; each part is [B, H, W/2, C].
    """

    def odd_row(x):
        return (jnp.arange(x.shape[1]) % 2 == 1)[None, :, None, None]

    def divide(x):
        if x.ndim != 4 or x.shape[2] % 2:
            raise ValueError(f"x {x.shape}; expected [B, H, W, C] with an even W")
        left, right = x[:, :, 0::2], x[:, :, 1::2]
        return jnp.where(odd_row(x), right, left), jnp.where(odd_row(x), left, right)

    def merge(fixed, moved):
        left = jnp.where(odd_row(fixed), moved, fixed)
        right = jnp.where(odd_row(fixed), fixed, moved)
        b, h, w, c = fixed.shape
        return jnp.stack([left, right], axis=3).reshape(b, h, 2 * w, c)

    return Split(divide, merge)


def swapped(split: Split) -> Split:
    """The same split with the roles of the two parts exchanged."""
    return Split(lambda x: split.divide(x)[::-1], lambda fixed, moved: split.merge(moved, fixed))


class Transform(NamedTuple):
    """An elementwise bijection whose parameters a conditioner supplies.

    Attributes:
      size: parameters per element; `raw` is [..., size * C] for x [..., C], and raw = 0 gives the
        identity.
      forward: (raw, x) -> (z, log_slope), both of x's shape; log_slope may be of a wider dtype.
      inverse: (raw, z) -> (x, log_slope of the inverse).
    """

    size: int
    forward: Callable[..., Any]
    inverse: Callable[..., Any]


def additive() -> Transform:
    """z = x + raw; volume-preserving (NICE, equation 9)."""
    return Transform(
        1,
        lambda raw, x: (x + raw, jnp.zeros_like(x)),
        lambda raw, z: (z - raw, jnp.zeros_like(z)),
    )


def affine(limit: float = 2.0) -> Transform:
    """z = x * exp(s) + shift with |s| < limit (RealNVP, section 3.2).

    s = limit * tanh(raw_s / limit) is also the log-slope. Common code does not bound s; training
    then works, but the inverse can overflow.

    Args:
      limit: bound of the log-scale, > 0.

    Raises:
      ValueError: limit is not a finite number > 0.
    """
    require(above=0, limit=limit)

    def shift_and_log_scale(raw):
        shift, s = jnp.split(raw, 2, axis=-1)
        return shift, limit * jnp.tanh(s / limit)

    def forward(raw, x):
        shift, s = shift_and_log_scale(raw)
        return x * jnp.exp(s) + shift, s

    def inverse(raw, z):
        shift, s = shift_and_log_scale(raw)
        return (z - shift) * jnp.exp(-s), -s

    return Transform(2, forward, inverse)


def coupling(
    conditioner: Callable[[int], Any], transform: Transform, split: Split | None = None
) -> Bijector:
    """z_fixed = x_fixed,  z_moved = T(x_moved; raw),  raw = net(x_fixed, context).

    Dinh et al. 2017, equations 4 to 8 (arXiv 1605.08803). If T is affine and the moved part is
    factored out afterwards, this layer is Glow's conditional Gaussian prior: the latent is
    (x_moved - mean) / std, with mean and std computed from the part that is kept.

    Args:
      conditioner: features -> network that maps [..., C_fixed] to [..., features]. A network is
        anything with two pure functions `init(key, x, context)` -> params and
        `apply(params, x, context)`: a flax.linen module, the pair that haiku's
        `without_apply_rng(transform(f))` returns, or a NamedTuple of two functions. To wrap an
        nnx.Module, split it in `init` and merge it in `apply`.
      transform: `additive()`, `affine()` or `rational_quadratic_spline()`.
      split: `halves()` by default.

    Raises:
      ValueError: in `init`, `forward` and `inverse`, an x of one channel, which has no other to be
        conditioned on. With a context the layer moves that channel conditioned on the context.
    """
    split = split or halves()

    def network(moved):
        return conditioner(transform.size * moved.shape[-1])

    def divide(x, context):
        fixed, moved = split.divide(batched(x))
        if not moved.shape[-1] or (not fixed.shape[-1] and context is None):
            raise ValueError(
                f"x {jnp.shape(x)}; expected two channels or more, so that one part conditions the "
                "other; for one channel, use `elementwise`"
            )
        return fixed, moved

    def init(key, x, context=None):
        fixed, moved = divide(x, context)
        return network(moved).init(key, fixed, context)

    def move(raw, moved):
        z, log_slope = transform.forward(raw, moved)
        return z, sum_event(log_slope)

    def forward(params, x, context=None):
        fixed, moved = divide(x, context)
        raw = network(moved).apply(params, fixed, context)
        z, logdet = move(raw, moved)
        return split.merge(fixed, z), logdet

    def inverse(params, z, context=None):
        fixed, moved = divide(z, context)
        raw = network(moved).apply(params, fixed, context)
        x, log_slope = transform.inverse(raw, moved)
        return split.merge(fixed, x), sum_event(log_slope)

    def backward(params, z, context, cotangents):
        # The fixed part is the same in x and z, so one evaluation of the network serves both the
        # inverse and the gradient.
        g_z, g_logdet = cotangents
        fixed, moved_z = split.divide(z)
        g_fixed, g_moved = split.divide(g_z)
        raw, network_vjp = jax.vjp(network(moved_z).apply, params, fixed, context)
        moved_x, _ = transform.inverse(raw, moved_z)
        _, move_vjp = jax.vjp(move, raw, moved_x)
        g_raw, g_moved = move_vjp((g_moved, g_logdet))
        g_params, g_fixed_network, g_context = network_vjp(g_raw)
        x = split.merge(fixed, moved_x)
        return x, (g_params, split.merge(g_fixed + g_fixed_network, g_moved), g_context)

    return Bijector(init, forward, inverse, backward)
