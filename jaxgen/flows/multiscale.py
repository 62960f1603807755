"""Squeeze and multiscale composition (RealNVP, Dinh et al. 2017, section 3.6)."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxgen.flows.bijector import Bijector, batched, constant_logdet
from jaxgen.flows.coupling import halves
from jaxgen.models.resampling import depth_to_space, space_to_depth


def squeeze() -> Bijector:
    """Trade space for channels: [B, H, W, C] -> [B, H/2, W/2, 4C]; logdet 0.

    The four pixels of a 2x2 block become channels in the order (0,0), (0,1), (1,0), (1,1); the C
    channels of a pixel stay together.

    Raises:
      ValueError: in `forward`, H or W is odd; in `inverse`, z does not have 4C channels.
    """

    def forward(params, x, context=None):
        x = batched(x)
        return space_to_depth(x), constant_logdet(0, x)

    def inverse(params, z, context=None):
        z = batched(z)
        return depth_to_space(z), constant_logdet(0, z)

    return Bijector(lambda key, x, context=None: (), forward, inverse)


def flatten(shape: Sequence[int]) -> Bijector:
    """Flattens each example to a vector: [B, *shape] -> [B, prod(shape)]; logdet 0.

    Raises:
      ValueError: in `forward` and `inverse`, an example of another shape.
    """

    def reshape(before, after):
        def apply(params, x, context=None):
            x = batched(x)
            if x.shape[1:] != before:
                raise ValueError(f"x {x.shape}; expected examples of shape {before}")
            return x.reshape(x.shape[0], *after), constant_logdet(0, x)

        return apply

    shape, flat = tuple(shape), (math.prod(shape),)
    return Bijector(lambda key, x, context=None: (), reshape(shape, flat), reshape(flat, shape))


def multiscale(*levels: Bijector) -> Bijector:
    """Runs levels in sequence, and factors out half of the channels after each but the last.

    The second half of the channels is then a final latent; only the first half enters the next
    level.

    z is the tuple (z_1, ..., z_L) of the latents of all levels. No latent is resampled, so
    inverse(forward(x)) = x exactly. If a level ends in an affine `coupling` over `halves()`, the
    prior of the half that is factored out is a Gaussian conditioned on the half that is kept.

    Raises:
      ValueError: no level is given; in `init` and `forward`, a level has one channel left; in
        `inverse`, z is not a tuple of one latent per level.
    """
    if not levels:
        raise ValueError("no levels; expected at least one")
    cut = halves()

    def divide(x):
        if x.shape[-1] < 2:
            raise ValueError(f"x {x.shape}; expected two channels, one for the next level")
        return cut.divide(x)

    def init(key, x, context=None):
        params = []
        for i, (level, subkey) in enumerate(
            zip(levels, jax.random.split(key, len(levels)), strict=True)
        ):
            params.append(level.init(subkey, x, context))
            if i < len(levels) - 1:
                x, _ = divide(level.forward(params[-1], x, context)[0])
        return tuple(params)

    def forward(params, x, context=None):
        latents, total = [], 0.0
        for i, (level, p) in enumerate(zip(levels, params, strict=True)):
            x, logdet = level.forward(p, x, context)
            total = total + logdet
            if i < len(levels) - 1:
                x, finished = divide(x)
                latents.append(finished)
        return (*latents, x), total

    def inverse(params, z, context=None):
        if not isinstance(z, tuple) or len(z) != len(levels):
            raise ValueError(
                f"z {jax.tree.map(jnp.shape, z)}; expected a tuple of {len(levels)} "
                "latents, one per level"
            )
        *latents, x = z
        total = 0.0
        for i in reversed(range(len(levels))):
            if i < len(levels) - 1:
                x = cut.merge(x, latents[i])
            x, logdet = levels[i].inverse(params[i], x, context)
            total = total + logdet
        return x, total

    return Bijector(init, forward, inverse)
