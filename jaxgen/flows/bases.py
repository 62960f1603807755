"""Distributions of a flow's latents: elementwise, Gaussian, and mixtures.

Their parameters are plain arrays. A learned base is built inside the loss, from params:

    base = mixture(params["logits"], params["mean"], params["log_std"])
    loss = -log_prob(flow, params["flow"], x, base=base)

and a conditional one from a network's output, one row [B, ...] of parameters per example.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jaxgen.arguments import at_least_f32
from jaxgen.flows.bijector import sum_event

_LOG_2PI = math.log(2 * math.pi)


class Base(NamedTuple):
    """Distribution of the latents z: an array [B, ...], or a tuple of them for a multiscale flow.

    Attributes:
      log_prob: z -> log p(z) [B], in nats, at least f32.
      sample: (key, like, temperature=1.0) -> z, with the shapes and dtypes of `like`. The
        temperature, a scalar or [B], multiplies the deviation of z from its mean; in a mixture,
        from the mean of the component that was drawn.
    """

    log_prob: Callable[..., Any]
    sample: Callable[..., Any]


def independent(log_density: Callable, draw: Callable) -> Base:
    """log p(z) = sum_i log q(z_i): the same law q, of mean 0, for every element of every latent.

    Args:
      log_density: z -> log q(z) elementwise, in nats.
      draw: (key, shape, dtype) -> z.
    """

    def log_prob(z):
        return sum(sum_event(log_density(at_least_f32(leaf))) for leaf in jax.tree.leaves(z))

    def sample(key, like, temperature=1.0):
        leaves, treedef = jax.tree.flatten(like)
        keys = jax.random.split(key, len(leaves))
        drawn = [draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(treedef, [_scaled(temperature, z) for z in drawn])

    return Base(log_prob, sample)


def standard_normal() -> Base:
    """log q(z) = -z^2 / 2 - log(2 pi) / 2, for every element."""
    return independent(lambda z: -0.5 * (z**2 + _LOG_2PI), jax.random.normal)


def standard_logistic() -> Base:
    """log q(z) = -softplus(z) - softplus(-z): the prior of NICE (arXiv 1410.8516, section 3.4)."""
    return independent(lambda z: -jax.nn.softplus(z) - jax.nn.softplus(-z), jax.random.logistic)


def gaussian(mean, log_std) -> Base:
    """N(mean, diag(std^2)): log p(z) = -1/2 sum (((z - mean) / std)^2 + log(2 pi)) - sum log std.

    Args:
      mean: the shape of one example's z, or [B, ...].
      log_std: as mean.

    Raises:
      ValueError: when called, z is a tuple, or a parameter has neither of the two shapes.
    """

    def parameters(z):
        shape = _shape(z)
        m, s = _parameter(shape, mean=mean), _parameter(shape, log_std=log_std)
        return jnp.broadcast_to(m, shape), jnp.broadcast_to(s, shape)

    def log_prob(z):
        m, s = parameters(z)
        return sum_event(-0.5 * (((z - m) * jnp.exp(-s)) ** 2 + _LOG_2PI) - s)

    def sample(key, like, temperature=1.0):
        m, s = parameters(like)
        eps = _scaled(temperature, jax.random.normal(key, like.shape, m.dtype))
        return (m + jnp.exp(s) * eps).astype(like.dtype)

    return Base(log_prob, sample)


def gaussian_full(mean, cholesky) -> Base:
    """N(mean, L L^T): log p(z) = -1/2 |e|^2 - D/2 log(2 pi) - sum log |L_ii|, e = L^-1 (z - mean).

    Args:
      mean: [D] or [B, D].
      cholesky: L, lower triangular, [D, D] or [B, D, D]; what is above the diagonal is ignored.

    Raises:
      ValueError: when called, z is not [B, D], or a parameter has neither of its two shapes.
    """

    def parameters(z):
        shape = _shape(z)
        if len(shape) != 2:
            raise ValueError(f"z {shape}; expected [B, D]")
        factor = jnp.tril(_parameter((*shape, shape[1]), cholesky=cholesky))
        return jnp.broadcast_to(_parameter(shape, mean=mean), shape), factor

    def over_examples(function, factor, vectors):
        return jax.vmap(function, (0 if factor.ndim == 3 else None, 0))(factor, vectors)

    def log_prob(z):
        m, factor = parameters(z)
        e = over_examples(partial(solve_triangular, lower=True), factor, z - m)
        log_volume = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor, 0, -2, -1))), -1)
        return sum_event(-0.5 * (e**2 + _LOG_2PI)) - jnp.broadcast_to(log_volume, z.shape[:1])

    def sample(key, like, temperature=1.0):
        m, factor = parameters(like)
        e = _scaled(temperature, jax.random.normal(key, like.shape, m.dtype))
        return (m + over_examples(partial(jnp.matmul, precision="highest"), factor, e)).astype(
            like.dtype
        )

    return Base(log_prob, sample)


def mixture(logits, *parameters, component: Callable[..., Base] = gaussian) -> Base:
    """p(z) = sum_k w_k p_k(z), w = softmax(logits), p_k = component(parameters of k).

    `mixture(logits, mean, log_std)` is a mixture of diagonal Gaussians, and
    `mixture(logits, mean, cholesky, component=gaussian_full)` one of full Gaussians.

    Args:
      logits: [K], or [B, K] for other weights in every example.
      *parameters: arrays [K, ...]; [B, K, ...] if logits is [B, K].
      component: the parameters of one component -> its `Base`.

    Raises:
      ValueError: a parameter's first axes are not those of logits.
    """
    logits = at_least_f32(logits)
    parameters = tuple(map(jnp.asarray, parameters))
    axis = logits.ndim - 1
    for p in parameters:
        if p.shape[: axis + 1] != logits.shape:
            raise ValueError(f"parameter {p.shape}; expected {logits.shape} first, as logits")

    def log_prob(z):
        each = jax.vmap(lambda *p: component(*p).log_prob(z), axis, -1)(*parameters)
        return jax.nn.logsumexp(each + jnp.broadcast_to(jax.nn.log_softmax(logits), each.shape), -1)

    def sample(key, like, temperature=1.0):
        which, within = jax.random.split(key)
        batch = jax.tree.leaves(like)[0].shape[:1]
        chosen = jax.random.categorical(which, logits, shape=batch)

        def pick(p):
            rows = jnp.broadcast_to(p, batch + p.shape[1:]) if axis else p
            return jax.vmap(lambda row, k: row[k], (0 if axis else None, 0))(rows, chosen)

        return component(*map(pick, parameters)).sample(within, like, temperature)

    return Base(log_prob, sample)


def _scaled(temperature, z):
    """temperature * z; the temperature is a scalar or [B]."""
    t = jnp.asarray(temperature, z.dtype)
    return z * t.reshape(t.shape + (1,) * (z.ndim - t.ndim))


def _shape(z):
    if not hasattr(z, "shape"):
        raise ValueError(f"z {jax.tree.map(jnp.shape, z)}; expected one array [B, ...]")
    return tuple(z.shape)


def _parameter(shape, **named):
    """The parameter as one for all examples or one for each, in at least f32."""
    ((name, p),) = named.items()
    p = at_least_f32(p)
    if p.shape not in (shape, shape[1:], (1, *shape[1:])):
        raise ValueError(f"{name} {p.shape}; expected {shape[1:]} or {shape}")
    return p if p.shape == shape else p.reshape(shape[1:])
