"""What every flow experiment does: fit by maximum likelihood, judge in bits/dim, draw pictures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import RunConfig
from experiments.lib.data import Images, load_images
from experiments.lib.errors import UserError
from experiments.lib.method import Method
from experiments.lib.pictures import grid
from jaxgen import flows


@dataclass(frozen=True)
class FlowConfig(RunConfig):
    """The knobs that every flow has."""

    data: Literal["digits", "mnist", "fashion_mnist", "anime_faces", "cifar10"] = "digits"
    """Data set."""
    learning_rate: float = 4e-3
    """Peak of the warm-up and cosine schedule."""
    weight_decay: float = 3000.0
    """Decoupled decay of the conditioners' kernels, times the number of training examples."""
    init_batch: int = 512
    """Images that set the first scales (actnorm)."""

    LEAST: ClassVar = RunConfig.LEAST | {"learning_rate": 0, "weight_decay": 0, "init_batch": 1}


@dataclass(frozen=True)
class ImageFlowConfig(FlowConfig):
    """And those of a multiscale one."""

    levels: int = 2
    """Scales; the image's sides must be multiples of 2^levels."""
    reversible: bool = True
    """Recompute activations from the inverse, so that memory does not grow with depth."""
    margin: float = 1e-5
    """Distance that the logit keeps from 0 and 1; dark images want it small."""

    LEAST: ClassVar = FlowConfig.LEAST | {"levels": 1}

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.margin < 0.5:
            raise UserError(f"--margin {self.margin}: expected a number in (0, 0.5)")

    def load(self) -> Images:
        """Open the data set; its images must be divisible into the levels.

        Raises:
          UserError: the data is not there or not whole, or too many --levels.
        """
        data = load_images(self.data, self.data_dir)
        if any(side % 2**self.levels for side in data.shape[:2]):
            raise UserError(
                f"--levels {self.levels}: {data.name} has images {data.shape}; expected sides"
                f" divisible by {2**self.levels}"
            )
        return data


class State(NamedTuple):
    """What training carries from step to step."""

    params: Any
    average: Any  # of params over the steps; judged and drawn from
    optimizer: Any
    count: Any  # steps done


def adam(config: FlowConfig, examples: int) -> optax.GradientTransformation:
    """Adam with a short warm-up, a cosine to zero over all steps, and clipping against spikes.

    Only the kernels of the conditioners decay: pulling actnorm's or a 1x1 convolution's scales
    towards one would undo what they learn from the data.
    """

    def kernels(params):
        return jax.tree.map_with_path(lambda path, _: "kernel" in str(path[-1]), params)

    steps = config.steps
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup_steps=max(1, steps // 20), decay_steps=max(2, steps)
    )
    decay = config.weight_decay / examples
    return optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.adamw(schedule, weight_decay=decay, mask=kernels),
    )


def maximum_likelihood(
    flow: flows.Bijector,
    optimizer: optax.GradientTransformation,
    data: Images,
    average_decay: float = 0.999,
    noise: Callable | None = None,
) -> Method:
    """Minimise bits/dim of dequantized images.

    bits/dim = -(log p((x + u) / levels) - D log levels) / (D log 2), an upper bound in expectation
    on the codelength of the integers x.

    Args:
      flow: on images [B, H, W, C] with values in [0, 1).
      optimizer: of its parameters.
      data: the images.
      average_decay: of the running average of the parameters (Polyak & Juditsky 1992); it starts
        shorter, min(decay, (1 + t) / (10 + t)), so that short runs forget their start.
      noise: (key, integers) -> (y, logdet), what training sees; uniform dequantization by default,
        which the evaluation always uses.
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
        # The average is a copy: the step donates the state, and no buffer can be donated twice.
        average = jax.tree.map(jnp.copy, params)
        return State(params, average, optimizer.init(params), jnp.zeros((), jnp.int32))

    def step(state, batch, key):
        noisy = (noise or uniform)(key, batch["image"])
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(bits(p, *noisy)))(state.params)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.count + 1
        decay = jnp.minimum(average_decay, count / (9 + count))
        average = optax.incremental_update(params, state.average, 1 - decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        return State(params, average, optimizer_state, count), metrics

    def evaluate(state, batch, key):
        y, logdet = uniform(key, batch["image"])
        z, _ = flow.forward(state.average, y)
        error = jnp.abs(flow.inverse(state.average, z)[0] - y)
        return {
            "bits_per_dim": bits(state.average, y, logdet),
            "reconstruction_error": jnp.max(error, axis=(1, 2, 3)),
        }

    return Method(init, step, evaluate, _pictures(flow, data))


def _pictures(flow: flows.Bijector, data: Images):
    """Samples, one noise at rising temperatures, ways between real images, reconstructions."""
    # Every sheet is 64 images, 8 a row, so that each direction is compiled once.
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
        z, _ = forward(state.average, real)
        noise = optax.tree.random_like(key, z)
        start, end = (take(z, jnp.repeat(pair, 8)) for pair in jnp.arange(16).reshape(2, 8))
        sheets = {
            "samples": noise,
            "samples_cooler": times(noise, jnp.full(64, 0.7)),
            "temperatures": times(take(noise, jnp.tile(jnp.arange(8), 8)), slow),
            "interpolation": jax.tree.map(jnp.add, times(start, 1 - fast), times(end, fast)),
            "reconstruction": z,
        }
        images = {name: inverse(state.average, latents) for name, latents in sheets.items()}
        again = images["reconstruction"]
        images["reconstruction"] = jnp.concatenate([real[:8], again[:8], jnp.abs(again - real)[:8]])
        return {name: grid(jax.device_get(sheet), columns=8) for name, sheet in images.items()}

    return pictures
