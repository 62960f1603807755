"""Bijectors, and their composition with `chain` and `repeat`.

A bijector is a NamedTuple of pure functions, like an optax transformation:

    params    = init(key, x, context)         may depend on statistics of the batch x
    z, logdet = forward(params, x, context)   data to latent, logdet [B] = log |det dz/dx|
    x, logdet = inverse(params, z, context)   latent to data, logdet [B] = log |det dx/dz|

x is [B, ...]; z is an array, or a tuple of arrays for a multiscale flow, which factors out latents.
`context` is None or a pytree of arrays that the layer is conditioned on: floats, or integer labels
for a network that embeds them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.arguments import as_float


class Bijector(NamedTuple):
    """An invertible map of a batch with its log-determinant.

    Attributes:
      init: (key, x, context=None) -> params. Layers with data-dependent initialisation (actnorm)
        use the statistics of x, so pass a large batch; on several devices, the global batch.
      forward: (params, x, context=None) -> (z, logdet [B]).
      inverse: (params, z, context=None) -> (x, logdet [B]).
      backward: one step of reversible backpropagation,
        (params, z, context, (g_z, g_logdet)) -> (x, (g_params, g_x, g_context)). It reconstructs
        the input x from the output z and returns it with the cotangents of `forward` at x. None
        means the general implementation: `inverse`, then the VJP of `forward`.
    """

    init: Callable[..., Any]
    forward: Callable[..., Any]
    inverse: Callable[..., Any]
    backward: Callable[..., Any] | None = None


def batched(x):
    """x [B, ...] as an array of floats; integers and booleans become f32.

    Raises:
      ValueError: x has no axis beside the batch's, as a single vector or a batch of numbers.
    """
    x = as_float(x)
    if x.ndim < 2:
        raise ValueError(f"x {x.shape}; expected [B, ...]")
    return x


def sum_event(x):
    """Sum over all axes but the first, in at least f32: [B, ...] -> [B]."""
    x = batched(x)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), dtype=dtype)


def constant_logdet(value, x):
    """The scalar `value` as a log-determinant for every example of x: [B], at least f32."""
    x = batched(x)
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    # full_like also makes it vary over the same mesh axes as x, as scan requires under shard_map.
    return jnp.full_like(x, value, dtype=dtype, shape=x.shape[:1])


def backward(bijector: Bijector):
    """`bijector.backward`, or the general implementation: `inverse`, then the VJP of `forward`."""
    if bijector.backward is not None:
        return bijector.backward

    def invert_and_differentiate(params, z, context, cotangents):
        x, _ = bijector.inverse(params, z, context)
        _, vjp = jax.vjp(bijector.forward, params, x, context)
        return x, vjp(cotangents)

    return invert_and_differentiate


def _differentiable(tree):
    """Drops integer leaves: labels have no cotangent, and float0 arrays cannot be added."""
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.inexact) else None, tree)


def chain(*bijectors: Bijector) -> Bijector:
    """Apply bijectors one after the other; log-determinants add up.

    z = f_n(... f_2(f_1(x)));  params is the tuple of their params. `init` initialises each layer
    on the output of the layers before it, so that data-dependent statistics are right.

    Raises:
      ValueError: no bijector is given.
    """
    if not bijectors:
        raise ValueError("no bijectors; expected at least one")

    def init(key, x, context=None):
        params = []
        for bijector, subkey in zip(bijectors, jax.random.split(key, len(bijectors)), strict=True):
            params.append(bijector.init(subkey, x, context))
            x, _ = bijector.forward(params[-1], x, context)
        return tuple(params)

    def forward(params, x, context=None):
        total = 0.0
        for bijector, p in zip(bijectors, params, strict=True):
            x, logdet = bijector.forward(p, x, context)
            total = total + logdet
        return x, total

    def inverse(params, z, context=None):
        total = 0.0
        for bijector, p in zip(reversed(bijectors), reversed(params), strict=True):
            z, logdet = bijector.inverse(p, z, context)
            total = total + logdet
        return z, total

    def chain_backward(params, z, context, cotangents):
        g, g_logdet = cotangents
        g_params: list[Any] = []
        g_context = jax.tree.map(jnp.zeros_like, _differentiable(context))
        for bijector, p in zip(reversed(bijectors), reversed(params), strict=True):
            z, (g_p, g, g_c) = backward(bijector)(p, z, context, (g, g_logdet))
            g_params.insert(0, g_p)
            g_context = jax.tree.map(jnp.add, g_context, _differentiable(g_c))
        return z, (tuple(g_params), g, g_context)

    return Bijector(init, forward, inverse, chain_backward)


def repeat(
    bijector: Bijector, depth: int, *, remat: bool = False, reversible: bool = False
) -> Bijector:
    """`depth` copies of a shape-preserving bijector, each with its own parameters.

    Parameters are stacked on a new first axis and one `lax.scan` runs over them, so compile time
    does not depend on the depth. `init`, `forward` and `inverse` are compiled by `jax.jit` once for
    each shape.

    Training memory: by default the activations of every layer are stored. `remat` stores only the
    input of each layer and recomputes the rest. `reversible` stores only the final output, and the
    backward pass recovers each layer's input by inversion (Gomez et al. 2017, arXiv 1707.04585), so
    activation memory does not grow with depth. It costs about as much as `remat`, because a
    coupling evaluates its conditioner once for both the inverse and the gradient. Inputs are
    recovered up to rounding errors, which grow where the inverse is expanding. `reversible`
    supports reverse-mode differentiation only. Both hold for `forward` and for `inverse`.

    Args:
      bijector: maps x to a z of the same shape and dtype.
      depth: number of copies, >= 1.
      remat: recompute each layer's activations in the backward pass.
      reversible: recompute inputs by inversion in the backward pass.

    Raises:
      ValueError: depth < 1, or remat and reversible together.
    """
    if depth < 1:
        raise ValueError(f"depth {depth}; expected at least 1")
    if remat and reversible:
        raise ValueError("remat and reversible are both True; expected at most one of them")

    def save(layer):
        # Inside scan, recomputation cannot be merged with the forward pass, so prevent_cse's
        # barriers would only cost time.
        return jax.checkpoint(layer, prevent_cse=False) if remat else layer

    def init(key, x, context=None):
        def body(x, key):
            params = bijector.init(key, x, context)
            return bijector.forward(params, x, context)[0], params

        return jax.lax.scan(body, batched(x), jax.random.split(key, depth))[1]

    forward = _scan(save(bijector.forward), depth)
    inverse = _scan(save(bijector.inverse), depth, reverse=True)
    scan_backward = _scan_backward(bijector, depth, reverse=True)
    if reversible:
        forward = _differentiated_from_output(forward, scan_backward)
        inverse = _differentiated_from_output(inverse, _scan_backward(invert(bijector), depth))
    # Compiled once for each shape, also where they are called outside of jit.
    return Bijector(jax.jit(init), jax.jit(forward), jax.jit(inverse), scan_backward)


def _scan(layer, depth, reverse=False):
    """(params, x, context) -> (z, logdet) of `depth` layers, one after the other."""

    def apply(params, x, context=None):
        def body(carry, p):
            x, total = carry
            z, logdet = layer(p, x, context)
            return (z, total + logdet), None

        x = batched(x)
        start = (x, constant_logdet(0, x))
        return jax.lax.scan(body, start, params, length=depth, reverse=reverse)[0]

    return apply


def _scan_backward(bijector, depth, reverse=False):
    """`backward` of `depth` layers."""
    step = backward(bijector)

    def apply(params, z, context, cotangents):
        g, g_logdet = cotangents

        def body(carry, p):
            z, g, g_context = carry
            x, (g_p, g, g_c) = step(p, z, context, (g, g_logdet))
            return (x, g, jax.tree.map(jnp.add, g_context, _differentiable(g_c))), g_p

        start = (z, g, jax.tree.map(jnp.zeros_like, _differentiable(context)))
        (x, g, g_context), g_params = jax.lax.scan(
            body, start, params, length=depth, reverse=reverse
        )
        return x, (g_params, g, g_context)

    return apply


def _differentiated_from_output(function, backward):
    """`function` with a VJP that keeps its output instead of its input and activations."""
    apply = jax.custom_vjp(function)

    def keep_output(params, x, context):
        z, logdet = function(params, x, context)
        return (z, logdet), (params, z, context)

    def from_output(kept, cotangents):
        return backward(*kept, cotangents)[1]

    apply.defvjp(keep_output, from_output)
    return lambda params, x, context=None: apply(params, batched(x), context)


def stack(params: Sequence[Any]):
    """Join the params of `chain(f, f, ...)` into those of `repeat(f, n)`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)


def invert(bijector: Bijector) -> Bijector:
    """The inverse bijection: `forward` and `inverse` change places.

    Sampling then costs what the likelihood cost, and the other way round. The inverse of a masked
    autoregressive flow is an inverse autoregressive flow (Kingma et al. 2016, arXiv 1606.04934).
    `init` is that of `bijector`: give it a batch of the shape that `bijector` takes. A layer that
    looks at its batch (actnorm) then normalises in the direction of `bijector`.
    """
    return Bijector(bijector.init, bijector.inverse, bijector.forward)
