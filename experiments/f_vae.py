"""f-VAE: an autoencoder with as many latents as pixels, and a flow as their prior, on images.

Su & Wu 2018 (arXiv 1809.05861); Su Jianlin's post 5977 (kexue.fm).

    python -m experiments.f_vae                                  2.151 bits/dim, 0.6 min

Bound on held-out bits/dim, lower is better; an independent histogram for each pixel reaches 2.39.
The paper's flow is --additive --shuffle, its blocks have batch normalization, and its pixels no
noise, so that it has no bound. Here pixels are dequantized, and their logits modelled as in `glow`.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.sources.image_set import Images
from experiments.methods.flow import GlowConfig
from experiments.methods.variational import Autoencoder, autoencoder, least_log_std, through
from jaxgen import flows, losses
from jaxgen.models import SqueezeDecoder, SqueezeEncoder


@dataclass(frozen=True)
class Config(GlowConfig):
    """The f-VAE's knobs."""

    steps: int = 800
    """Training steps."""
    stages: Annotated[int, AtLeast(0)] = 1
    """Times that the encoder halves the image; its sides are multiples of 2^(stages + levels)."""
    blocks: Annotated[int, AtLeast(1)] = 4
    """Residual blocks per stage of the encoder, and as many of the decoder."""
    block_width: Annotated[int, AtLeast(1)] = 64
    """Hidden channels of the residual blocks."""
    depth: Annotated[int, AtLeast(1)] = 4
    """Steps of flow per scale."""

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
_START = -2.0  # of log s1 and log s2: the encoder at first only reshapes, and the decoder undoes it


def f_vae(encoder, decoder, flow: flows.Bijector, floor: float) -> Autoencoder:
    """h = E(x) + s1 u, p(x | h) = N(G(h), s2^2), p(h) is the flow; s1, s2 are learned numbers."""

    def encode(params, x):
        return encoder.apply(params["encoder"], x)

    def decode(params, h):
        return decoder.apply(params["decoder"], h)

    def init(key, x):
        encoder_key, decoder_key, flow_key, noise_key = jax.random.split(key, 4)
        h, encoding = encoder.init_with_output(encoder_key, x)
        noisy = losses.reparameterize(noise_key, h, _START)
        return {
            "encoder": encoding,
            "decoder": decoder.init(decoder_key, h[:1]),
            "flow": flow.init(flow_key, noisy),
            "log_s1": jnp.float32(_START),
            "log_s2": jnp.float32(_START),
        }

    def bound(params, key, x):
        s2 = losses.soft_floor(params["log_s2"], floor)
        return losses.elbo(
            lambda x: (encode(params, x), params["log_s1"]),
            lambda x, h: losses.gaussian_log_likelihood(x, decode(params, h), s2),
            lambda h: flows.log_prob(flow, params["flow"], h),
            key,
            x,
        ).bound

    return Autoencoder(
        init,
        bound,
        lambda params, x: flow.forward(params["flow"], encode(params, x))[0],
        lambda params, z: decode(params, flow.inverse(params["flow"], z)[0]),
    )


def build(config: Config):
    """Images, and the f-VAE fitted to them."""
    data = config.images()
    sizes = config.stages, config.blocks, config.block_width
    floor = least_log_std(data.levels)
    model = f_vae(SqueezeEncoder(*sizes), SqueezeDecoder(*sizes), config.glow(), floor)
    model = through(flows.logit(config.margin), model)
    return data, autoencoder(model, data, config, temperatures=(1.0, 0.8))


if __name__ == "__main__":
    launch(build, Config)
