"""Maximum likelihood for flows: the method, its flags, and its pictures."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import Above, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.pictures import beside, sheet
from experiments.lib.sources.image_set import Images
from experiments.lib.sources.images import ImageConfig
from experiments.methods.samples import in_blocks
from jaxgen import flows
from jaxgen.optimizers import update_ema

METRICS = {
    "bits_per_dim": "codelength of a test image per pixel and channel, at most; lower is better",
    "reconstruction_error": "largest error of a pixel in [0, 1], through the flow and back; mean",
}


@dataclass(frozen=True)
class FlowConfig(ImageConfig):
    """The flags of every flow."""

    learning_rate: Annotated[float, AtLeast(0)] = 4e-3
    """Peak of the warm-up and cosine schedule."""
    weight_decay: Annotated[float, AtLeast(0)] = 3000.0
    """Decoupled decay of the conditioners' kernels, times the number of training examples."""
    init_batch: Annotated[int, AtLeast(1)] = 512
    """Images that set the first scales (actnorm)."""


@dataclass(frozen=True)
class ImageFlowConfig(FlowConfig):
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


class State(NamedTuple):
    """The state of training.

    Attributes:
      params: of the flow.
      ema: running average of params, used for evaluation and sampling.
      opt_state: of the optimizer.
      count: steps done.
    """

    params: Any
    ema: Any
    opt_state: Any
    count: Any


def schedule(config: FlowConfig) -> optax.Schedule:
    """A short warm-up, then a cosine to zero over all steps."""
    steps = config.steps
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup_steps=max(1, steps // 20), decay_steps=max(2, steps)
    )


def adam(config: FlowConfig, examples: int) -> optax.GradientTransformation:
    """AdamW with a short warm-up, a cosine decay to zero, and clipping of the gradient's norm.

    Weight decay applies to the kernels of the conditioners only. The parameters of actnorm and of
    the 1x1 convolutions hold the scale of the data, which decay would pull towards one.
    """

    def kernels(params):
        return jax.tree.map_with_path(lambda path, _: "kernel" in str(path[-1]), params)

    decay = config.weight_decay / examples
    return optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.adamw(schedule(config), weight_decay=decay, mask=kernels),
    )


def maximum_likelihood(
    flow: flows.Bijector,
    optimizer: optax.GradientTransformation,
    data: Images,
    init_batch: int,
    ema_decay: float = 0.999,
    noise: Callable | None = None,
    rate: optax.Schedule | None = None,
) -> Method:
    """Minimises bits/dim of dequantized images.

    bits/dim = -(log p((x + u) / levels) - D log levels) / (D log 2). Its expectation over u is an
    upper bound of the code length of the integers x. The method also has `sample`, and `log_prob`,
    the bound with one draw of u.

    Args:
      flow: on images [B, H, W, C] with values in [0, 1).
      optimizer: of its parameters.
      data: the images.
      init_batch: number of images that `init` gets.
      ema_decay: of the running average of the parameters (Polyak & Juditsky 1992).
      noise: (key, integers) -> (y, logdet), the noisy images of training. The default is uniform
        dequantization, which the evaluation always uses.
      rate: the optimizer's schedule, to report the learning rate of each step.
    """
    dims = math.prod(data.shape)

    def uniform(key, images):
        return flows.dequantize(key, images, data.levels)

    def bits(params, y, logdet):
        return flows.bits_per_dim(flows.log_prob(flow, params, y) + logdet, dims)

    def init(key, batch):
        init_key, noise_key = jax.random.split(key)
        y, _ = (noise or uniform)(noise_key, batch["image"])
        params = flow.init(init_key, y)
        # A copy: the step donates the state, and a buffer can be donated only once.
        ema = jax.tree.map(jnp.copy, params)
        return State(params, ema, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state, batch, key):
        noisy = (noise or uniform)(key, batch["image"])
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(bits(p, *noisy)))(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.count + 1
        ema = update_ema(params, state.ema, count, ema_decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        if rate:
            metrics["learning_rate"] = rate(state.count)
        return State(params, ema, opt_state, count), metrics

    def evaluate(state, batch, key):
        y, logdet = uniform(key, batch["image"])
        z, _ = flow.forward(state.ema, y)
        error = jnp.abs(flow.inverse(state.ema, z)[0] - y)
        return {
            "bits_per_dim": bits(state.ema, y, logdet),
            "reconstruction_error": jnp.max(error, axis=(1, 2, 3)),
        }

    @functools.partial(jax.jit, static_argnums=2)
    def block(params, key, count):
        y = flows.sample(flow, params, key, (count, *data.shape))
        return flows.quantize(y, data.levels).astype(jnp.uint8)

    def sample(state, key, count):
        return in_blocks(lambda key, numbers: block(state.ema, key, len(numbers)), key, count)

    @jax.jit
    def log_prob(state, x, key):
        y, logdet = uniform(key, x)
        return flows.log_prob(flow, state.ema, y) + logdet

    return Method(
        init,
        step,
        evaluate,
        pictures=_pictures(flow, data),
        sample=sample,
        log_prob=log_prob,
        init_batch=init_batch,
        meanings=METRICS,
    )


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
