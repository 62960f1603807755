"""f-VAE: an autoencoder without a bottleneck, whose latents' prior is a flow, on images.

Su & Wu 2018 (arXiv 1809.05861); Su Jianlin's post 5977 (kexue.fm).

    python -m experiments.f_vae                                  0.000 bits/dim, 1 min

Held-out bits/dim, lower is better; an independent histogram for each pixel reaches 2.39.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.sources.image_set import Images
from experiments.methods.likelihood import LikelihoodConfig
from experiments.methods.variational import Autoencoder, autoencoder, least_log_std
from jaxgen import flows, losses
from jaxgen.models import SqueezeDecoder, SqueezeEncoder


@dataclass(frozen=True)
class Config(LikelihoodConfig):
    """The f-VAE's knobs."""

    steps: int = 800
    """Training steps."""
    stages: Annotated[int, AtLeast(0)] = 1
    """Times that the encoder halves the image; its sides are multiples of 2^(stages + levels)."""
    blocks: Annotated[int, AtLeast(1)] = 4
    """Residual blocks per stage of the encoder, and as many of the decoder."""
    block_width: Annotated[int, AtLeast(1)] = 64
    """Hidden channels of the residual blocks."""
    levels: Annotated[int, AtLeast(1)] = 2
    """Scales of the flow."""
    depth: Annotated[int, AtLeast(1)] = 4
    """Steps of flow per scale."""
    width: Annotated[int, AtLeast(1)] = 64
    """Hidden channels of the flow's conditioners."""
    additive: bool = False
    """Additive couplings instead of affine ones."""
    shuffle: bool = False
    """A fixed random permutation instead of invertible 1x1 convolutions."""
    reversible: bool = True
    """Recompute the flow's activations from its inverse: memory does not grow with depth."""

    def images(self) -> Images:
        """Opens the data set, whose images must be divisible into the stages and levels.

        Raises:
          UserError: the data is not there or not whole, or there are too many stages and levels.
        """
        data = super().images()
        factor = 2 ** (self.stages + self.levels)
        if any(side % factor for side in data.shape[:2]):
            raise UserError(
                f"--stages {self.stages} --levels {self.levels}: {data.name} has images"
                f" {data.shape}; expected sides divisible by {factor}; --size N crops and resizes"
                " to N x N"
            )
        return data


SMOKE = Config(
    steps=4,
    batch_size=16,
    init_batch=32,
    blocks=1,
    block_width=4,
    levels=1,
    depth=1,
    width=8,
    eval_every=2,
    log_every=1,
)


def f_vae(encoder, decoder, flow: flows.Bijector, levels: int, start: float) -> Autoencoder:
    """h = E(y) + s1 u, p(y | h) = N(G(h), s2^2), p(h) is the flow; s1, s2 are learned numbers."""

    def encode(params, y):
        return encoder.apply(params["encoder"], 2 * y - 1)

    def decode(params, h):
        return (decoder.apply(params["decoder"], h) + 1) / 2

    def init(key, y):
        encoder_key, decoder_key, flow_key, noise_key = jax.random.split(key, 4)
        h, encoding = encoder.init_with_output(encoder_key, 2 * y - 1)
        log_s1 = jnp.log(start)
        noisy = losses.reparameterize(noise_key, h, log_s1)
        return {
            "encoder": encoding,
            "decoder": decoder.init(decoder_key, h[:1]),
            "flow": flow.init(flow_key, noisy),
            "log_s1": log_s1,
            "log_s2": jnp.log(start / 2),
        }

    def bound(params, key, y):
        s2 = losses.soft_floor(params["log_s2"], least_log_std(levels))
        return losses.elbo(
            lambda y: (encode(params, y), params["log_s1"]),
            lambda y, h: losses.gaussian_log_likelihood(y, decode(params, h), s2),
            lambda h: flows.log_prob(flow, params["flow"], h),
            key,
            y,
        ).bound

    return Autoencoder(
        init,
        bound,
        lambda params, y: flow.forward(params["flow"], encode(params, y))[0],
        lambda params, z: decode(params, flow.inverse(params["flow"], z)[0]),
    )


def build(config: Config):
    """Images, and the f-VAE fitted to them."""
    data = config.images()
    sizes = config.stages, config.blocks, config.block_width
    flow = flows.glow(
        config.levels,
        config.depth,
        config.width,
        transform=flows.additive() if config.additive else flows.affine(),
        mixing=flows.shuffle() if config.shuffle else flows.invertible_1x1(),
        reversible=config.reversible,
    )
    model = f_vae(SqueezeEncoder(*sizes), SqueezeDecoder(*sizes), flow, data.levels, START)
    return data, autoencoder(model, data, config, temperatures=(1.0, 0.8))


START = 0.1

if __name__ == "__main__":
    launch(build, Config)
