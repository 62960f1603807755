"""VAE: convolutional, with one learned deviation of the decoder's Gaussian, on images.

Kingma & Welling 2014 (arXiv 1312.6114), the deviation as in sigma-VAE (arXiv 2006.13202); networks
of Su Jianlin's post 5887 (kexue.fm).

    python -m experiments.vae                                    2.258 bits/dim, 0.4 min

Bound on held-out bits/dim, lower is better; an independent histogram for each pixel reaches 2.39.
The decoder models the logits of dequantized pixels, as `glow` and `f_vae` do.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.config import Above, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.sources.image_set import Images
from experiments.methods import judge
from experiments.methods.latent_map import latent_map
from experiments.methods.likelihood import LikelihoodConfig
from experiments.methods.variational import Autoencoder, autoencoder, least_log_std, through
from jaxgen import flows, losses
from jaxgen.divergences import gaussian_kl_to_standard
from jaxgen.models import ConvDecoder, ConvEncoder
from jaxgen.models.resampling import doublings


@dataclass(frozen=True)
class Config(LikelihoodConfig):
    """The VAE's knobs."""

    steps: int = 1500
    """Training steps."""
    weight_decay: float = 1000.0
    """Decoupled decay of the networks' kernels, times the number of training examples."""
    latents: Annotated[int, AtLeast(1)] = 32
    """Dimensions of the latents."""
    width: Annotated[int, AtLeast(1)] = 64
    """Channels of the first stage of the encoder and of the last of the decoder."""
    margin: Annotated[float, Above(0), Below(0.5)] = 1e-5
    """The logit sees pixels in [margin, 1 - margin]; dark images need a small margin."""


SMOKE = Config(steps=4, batch_size=16, init_batch=32, latents=2, width=4, eval_every=2, log_every=1)
_MAPPED = 1000  # test images in the map of the latents


def vae(latents: int, width: int, shape: tuple[int, int, int], floor: float) -> Autoencoder:
    """p(x | z) = N(G(z), s^2), s one learned number; q(z | x) is a diagonal Gaussian; x logits."""
    encoder, decoder = ConvEncoder(2 * latents, width), ConvDecoder(shape, width)

    def init(key, x):
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, x[:1]),
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latents))),
            "log_std": jnp.log(jnp.std(x)),
        }

    def posterior(params, x):
        signed = jnp.tanh(x / 2)  # pixels in [-1, 1]
        both: Any = encoder.apply(params["encoder"], signed)
        return jnp.split(both, 2, axis=-1)

    def decode(params, z):
        return decoder.apply(params["decoder"], z)

    def bound(params, key, x):
        mean, log_std = posterior(params, x)
        decoded = decode(params, losses.reparameterize(key, mean, log_std))
        s = losses.soft_floor(params["log_std"], floor)
        likelihood = losses.gaussian_log_likelihood(x, decoded, s)
        return likelihood - gaussian_kl_to_standard(mean, log_std)

    return Autoencoder(init, bound, lambda params, x: posterior(params, x)[0], decode)


def build(config: Config):
    """Images, and the VAE fitted to them."""
    data = config.images()
    check_sides(data)
    model = vae(config.latents, config.width, data.shape, least_log_std(data.levels))
    model = through(flows.logit(config.margin), model)
    method = autoencoder(model, data, config)
    if data.labelled:
        method = method._replace(pictures=with_latents(method.pictures, model, data))
    return data, method


def check_sides(data: Images) -> None:
    """Raises a UserError where the networks cannot halve the images."""
    try:
        possible = doublings(data.shape) > 0
    except ValueError:
        possible = False
    if not possible:
        height, width, _ = data.shape
        raise UserError(
            f"--data {data.name}: the images have {width}x{height} pixels; expected sides that can"
            " be halved until both are 7 or less, such as 28, 32, 48 or 64; --size 32 crops and"
            " resizes to 32x32"
        )


def with_latents(pictures, model: Autoencoder, data: Images):
    """The pictures, and a map of the test images' latents, coloured by class."""
    encode = jax.jit(model.encode)

    def draw(state, batch, key):
        test = data.test[judge.places(data.test, _MAPPED)]
        means = encode(state.ema, (test["image"] + np.float32(0.5)) / data.levels)
        latents = latent_map(means, test["label"], "class")
        return pictures(state, batch, key) | {"latents": latents}

    return draw


if __name__ == "__main__":
    launch(build, Config)
