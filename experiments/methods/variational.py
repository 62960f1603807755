"""Autoencoders that are fitted by a bound on the likelihood: the method, and its pictures."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.method import Method
from experiments.lib.pictures import beside, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods.likelihood import Density, LikelihoodConfig, adam, maximum_likelihood
from jaxgen import flows
from jaxgen.optimizers import by_path, scale_by_tree

METRICS = {
    "reconstruction_rmse": "root mean square error of pixels in [0, 1], encoded without noise",
}
_FASTER = 10.0  # Adam moves a number by the learning rate at most, too slow for a log-deviation
_SIDE = 8  # images in a row and in a column of a sheet


class Autoencoder(NamedTuple):
    """A model of images y [B, H, W, C] in [0, 1) with latents z, whose prior is N(0, I).

    Attributes:
      init: (key, y) -> params.
      bound: (params, key, y) -> [B], in nats: a lower bound on log p(y), by one draw.
      encode: (params, y) -> z, without noise; an array or a tuple of arrays [B, ...].
      decode: (params, z) -> the mean of p(y | z).
    """

    init: Callable
    bound: Callable
    encode: Callable
    decode: Callable


def through(transform: flows.Bijector, model: Autoencoder) -> Autoencoder:
    """A model of y from one of x = transform(y): log p(y) = log p(x) + log|det dx/dy|.

    Args:
      transform: without parameters, such as `flows.logit`.
      model: of x.
    """

    def forward(y):
        return transform.forward((), y)

    def bound(params, key, y):
        x, logdet = forward(y)
        return model.bound(params, key, x) + logdet

    return Autoencoder(
        lambda key, y: model.init(key, forward(y)[0]),
        bound,
        lambda params, y: model.encode(params, forward(y)[0]),
        lambda params, z: transform.inverse((), model.decode(params, z))[0],
    )


def least_log_std(levels: int) -> float:
    """The floor of a decoder's log-deviation: 1/64 of the width of a grey level in [0, 1].

    Dequantized images have a bounded density, so the bound is finite without a floor. It keeps the
    likelihood of a decoder that becomes exact within the precision of f32.
    """
    return -math.log(64 * levels)


def autoencoder(
    model: Autoencoder,
    data: Images,
    config: LikelihoodConfig,
    temperatures: Sequence[float] = (1.0,),
) -> Method:
    """`maximum_likelihood` of an autoencoder, with its reconstruction error and pictures.

    The optimizer is `adam`, with ten times the rate for the parameters log_...: the log-deviations
    of a whole layer are single numbers. Samples are means of p(y | z), without noise of the pixels.

    Args:
      model: the autoencoder.
      data: the images.
      config: the flags.
      temperatures: of the samples in the pictures; each is a factor of z.
    """

    def draw(params, key, count, temperature=1.0):
        y = jax.ShapeDtypeStruct((count, *data.shape), jnp.float32)
        noise = optax.tree.random_like(key, jax.eval_shape(model.encode, params, y))
        return model.decode(params, jax.tree.map(lambda z: temperature * z, noise))

    rates = scale_by_tree(by_path({"^log_": _FASTER, "": 1.0}))
    optimizer = optax.chain(adam(config, len(data.train)), rates)
    density = Density(model.init, model.bound, draw)
    method = maximum_likelihood(density, optimizer, data, config)

    def evaluate(state, batch, key):
        y, _ = flows.dequantize(key, batch["image"], data.levels)
        error = model.decode(state.ema, model.encode(state.ema, y)) - y
        rmse = jnp.sqrt(jnp.mean(error**2, axis=(1, 2, 3)))
        return method.evaluate(state, batch, key) | {"reconstruction_rmse": rmse}

    return method._replace(
        evaluate=evaluate,
        pictures=_pictures(model, data, draw, temperatures),
        meanings={**method.meanings, **METRICS},
    )


def _pictures(model: Autoencoder, data: Images, draw: Callable, temperatures: Sequence[float]):
    """Samples beside test images, reconstructions, interpolations."""
    count = _SIDE**2
    encode, decode = jax.jit(model.encode), jax.jit(model.decode)
    sample = jax.jit(draw, static_argnums=2)

    def pictures(state, batch, key):
        noise_key, key = jax.random.split(key)
        real, _ = flows.dequantize(noise_key, batch["image"][:count], data.levels)
        z = encode(state.ema, real)
        again, paths = decode(state.ema, z), decode(state.ema, _paths(z))
        samples = [
            sheet(sample(state.ema, key, count, t), _SIDE, f"samples, temperature {t:g}")
            for t in temperatures
        ]
        pairs = np.stack([np.reshape(x, (-1, _SIDE, *data.shape)) for x in (real, again)], axis=1)
        return {
            "samples": beside(*samples, sheet(real, _SIDE, "test images")),
            "reconstruction": sheet(
                pairs[: _SIDE // 2].reshape(-1, *data.shape),
                _SIDE,
                "test images and what the decoder makes of their latents, without noise",
                ["test image", "decoded"] * (_SIDE // 2),
            ),
            "interpolation": sheet(
                paths, _SIDE, "each row: straight line between the latents of two test images"
            ),
        }

    return pictures


def _paths(z):
    """Straight lines between the latents 2 i and 2 i + 1, a row each."""
    share = jnp.tile(jnp.linspace(0, 1, _SIDE), _SIDE)

    def between(z):
        start, end = (jnp.repeat(ends, _SIDE, axis=0) for ends in (z[0::2], z[1::2]))
        factor = share.reshape(-1, *[1] * (z.ndim - 1))
        return (1 - factor) * start[: _SIDE**2] + factor * end[: _SIDE**2]

    return jax.tree.map(lambda a: between(a[: 2 * _SIDE]), z)
