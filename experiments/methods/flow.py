"""Maximum likelihood of flows: the flags of multiscale flows, errors, and pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import Above, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.pictures import beside, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods.likelihood import Density, LikelihoodConfig, maximum_likelihood
from jaxgen import flows

METRICS = {
    "reconstruction_error": "largest error of a pixel in [0, 1], through the flow and back; mean",
}


@dataclass(frozen=True)
class ImageFlowConfig(LikelihoodConfig):
    """The flags of a multiscale flow."""

    levels: Annotated[int, AtLeast(1)] = 2
    """Scales; the image's sides must be multiples of 2^levels."""
    reversible: bool = True
    """Recompute activations from the inverse, so that memory does not grow with depth."""
    margin: Annotated[float, Above(0), Below(0.5)] = 1e-5
    """The logit sees pixels in [margin, 1 - margin]; dark images need a small margin."""

    def images(self) -> Images:
        """Opens the data set, whose images must be divisible into the levels.

        Raises:
          UserError: the data is not there or not whole, or there are too many --levels.
        """
        data = super().images()
        if any(side % 2**self.levels for side in data.shape[:2]):
            raise UserError(
                f"--levels {self.levels}: {data.name} has images {data.shape}; expected sides"
                f" divisible by {2**self.levels}; --size N crops and resizes to N x N"
            )
        return data


@dataclass(frozen=True)
class GlowConfig(ImageFlowConfig):
    """The flags of Glow."""

    depth: Annotated[int, AtLeast(1)] = 8
    """Steps of flow per scale."""
    width: Annotated[int, AtLeast(1)] = 64
    """Hidden channels of the conditioners."""
    additive: bool = False
    """Additive couplings instead of affine ones."""
    shuffle: bool = False
    """A fixed random permutation instead of invertible 1x1 convolutions."""

    def glow(self) -> flows.Bijector:
        """The flow."""
        return flows.glow(
            self.levels,
            self.depth,
            self.width,
            transform=flows.additive() if self.additive else flows.affine(),
            mixing=flows.shuffle() if self.shuffle else flows.invertible_1x1(),
            reversible=self.reversible,
        )


def flow_likelihood(
    flow: flows.Bijector,
    optimizer: optax.GradientTransformation,
    data: Images,
    config: LikelihoodConfig,
    noise: Callable | None = None,
) -> Method:
    """`maximum_likelihood` of a flow, with its reconstruction error and pictures.

    Args:
      flow: on images [B, H, W, C] with values in [0, 1).
      optimizer: of its parameters.
      data: the images.
      config: the flags.
      noise: as in `maximum_likelihood`.
    """

    def log_prob(params, key, y):
        del key  # the density is exact
        return flows.log_prob(flow, params, y)

    def sample(params, key, count):
        return flows.sample(flow, params, key, (count, *data.shape))

    density = Density(flow.init, log_prob, sample)
    method = maximum_likelihood(density, optimizer, data, config, noise=noise)

    def evaluate(state, batch, key):
        y, _ = flows.dequantize(key, batch["image"], data.levels)
        z, _ = flow.forward(state.ema, y)
        error = jnp.abs(flow.inverse(state.ema, z)[0] - y)
        errors = {"reconstruction_error": jnp.max(error, axis=(1, 2, 3))}
        return method.evaluate(state, batch, key) | errors

    meanings = {**method.meanings, **METRICS}
    return method._replace(evaluate=evaluate, pictures=_pictures(flow, data), meanings=meanings)


def _pictures(flow: flows.Bijector, data: Images):
    """Samples, one noise at rising temperatures, interpolations, reconstructions."""
    # Every sheet takes 64 images through the flow, so that each direction is compiled once.
    forward, inverse = jax.jit(flow.forward), jax.jit(lambda params, z: flow.inverse(params, z)[0])
    rising = jnp.linspace(0, 1, 8)
    slow, fast = jnp.repeat(rising, 8), jnp.tile(rising, 8)  # by row, by column

    def take(z, rows):
        return jax.tree.map(lambda a: a[rows], z)

    def times(z, factor):
        return jax.tree.map(lambda a: a * factor.reshape(-1, *[1] * (a.ndim - 1)), z)

    def pictures(state, batch, key):
        noise_key, key = jax.random.split(key)
        real, _ = flows.dequantize(noise_key, batch["image"][:64], data.levels)
        z, _ = forward(state.ema, real)
        noise = optax.tree.random_like(key, z)
        start, end = (take(z, jnp.repeat(pair, 8)) for pair in jnp.arange(16).reshape(2, 8))
        latents = {
            "samples": noise,
            "samples_cooler": times(noise, jnp.full(64, 0.7)),
            "temperatures": times(take(noise, jnp.tile(jnp.arange(8), 8)), slow),
            "interpolation": jax.tree.map(jnp.add, times(start, 1 - fast), times(end, fast)),
            "reconstruction": z,
        }
        images = jax.device_get({name: inverse(state.ema, z) for name, z in latents.items()})
        real = np.asarray(real)

        def titled(name, title, rows=()):
            return sheet(images[name], 8, title, rows)

        test = sheet(real, 8, "test images")
        return {
            "samples": beside(titled("samples", "samples, temperature 1"), test),
            "samples_cooler": beside(
                titled("samples_cooler", "the same noise at temperature 0.7"), test
            ),
            "temperatures": titled(
                "temperatures",
                "one noise in each column, times the temperature of the row",
                [f"{temperature:.2f}" for temperature in rising],
            ),
            "interpolation": titled(
                "interpolation",
                "each row: straight line between the latents of two test images",
            ),
            "reconstruction": _reconstruction(real[:8], images["reconstruction"][:8]),
        }

    return pictures


def _reconstruction(real: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Test images, their reconstructions, and the errors times a factor that the label names."""
    error = np.abs(again - real).astype(np.float64)
    largest = np.max(error, where=np.isfinite(error), initial=0.0)
    factor = f"{1 / largest:.0e}" if largest > 0 else "1"
    return sheet(
        np.concatenate([real, again, error * float(factor)]),
        8,
        "test images through the flow and back",
        ["test image", "inverse(forward)", f"|error| x {factor}"],
    )
