"""Squeeze and multiscale composition (RealNVP, Dinh et al. 2017, section 3.6)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxgen.flows.bijector import Bijector, constant_logdet
from jaxgen.flows.coupling import halves


def squeeze() -> Bijector:
    """Trade space for channels: [B, H, W, C] -> [B, H/2, W/2, 4C]; logdet 0.

    The four pixels of a 2x2 block become channels in the order (0,0), (0,1), (1,0), (1,1); the C
    channels of a pixel stay together. `forward` raises a ValueError if H or W is odd.
    """

    def forward(params, x, context=None):
        if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
            raise ValueError(f"x {x.shape}; expected [B, H, W, C] with even H and W")
        b, h, w, c = x.shape
        z = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
        return z.reshape(b, h // 2, w // 2, 4 * c), constant_logdet(0, x)

    def inverse(params, z, context=None):
        b, h, w, c = z.shape
        x = z.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(b, 2 * h, 2 * w, c // 4), constant_logdet(0, z)

    return Bijector(lambda key, x, context=None: (), forward, inverse)


def flatten(shape: Sequence[int]) -> Bijector:
    """Flattens each example to a vector: [B, *shape] -> [B, prod(shape)]; logdet 0."""
    return Bijector(
        lambda key, x, context=None: (),
        lambda params, x, context=None: (x.reshape(x.shape[0], -1), constant_logdet(0, x)),
        lambda params, z, context=None: (z.reshape(-1, *shape), constant_logdet(0, z)),
    )


def multiscale(*levels: Bijector) -> Bijector:
    """Runs levels in sequence, and factors out half of the channels after each but the last.

    The second half of the channels is then a final latent; only the first half enters the next
    level.

    z is the tuple (z_1, ..., z_L) of the latents of all levels. No latent is resampled, so
    inverse(forward(x)) = x exactly. If a level ends in an affine `coupling` over `halves()`, the
    prior of the half that is factored out is a Gaussian conditioned on the half that is kept.

    Raises:
      ValueError: no level is given; or, in `inverse`, z is not a tuple of one latent per level.
    """
    if not levels:
        raise ValueError("no levels; expected at least one")
    cut = halves()

    def init(key, x, context=None):
        params = []
        for level, subkey in zip(levels, jax.random.split(key, len(levels)), strict=True):
            params.append(level.init(subkey, x, context))
            x, _ = cut.divide(level.forward(params[-1], x, context)[0])
        return tuple(params)

    def forward(params, x, context=None):
        latents, total = [], 0.0
        for i, (level, p) in enumerate(zip(levels, params, strict=True)):
            x, logdet = level.forward(p, x, context)
            total = total + logdet
            if i < len(levels) - 1:
                x, finished = cut.divide(x)
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
