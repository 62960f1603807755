"""NICE: additive couplings and one diagonal scaling, on flattened images.

Dinh, Krueger & Bengio 2014 (arXiv 1410.8516); Su Jianlin's post 5776 (kexue.fm).

    python -m experiments.nice                                   2.900 bits/dim, 0.4 min

Held-out bits/dim, lower is better; an independent histogram for each pixel reaches 2.39.
`--width 1000 --layers 5` are the post's networks, `--blog-noise` is its noise. See RESULTS.md.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import jax

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.methods.flow import flow_likelihood
from experiments.methods.likelihood import LikelihoodConfig, adam
from jaxgen import flows


@dataclass(frozen=True)
class Config(LikelihoodConfig):
    """NICE's knobs."""

    steps: int = 3000
    """Training steps."""
    learning_rate: float = 1e-3
    """Peak of the warm-up and cosine schedule."""
    couplings: Annotated[int, AtLeast(1)] = 4
    """Coupling layers."""
    width: Annotated[int, AtLeast(1)] = 256
    """Units of each hidden layer."""
    layers: Annotated[int, AtLeast(0)] = 3
    """Hidden layers of each coupling."""
    blog_noise: bool = False
    """Train with the noise of kexue.fm 5776, x / white - 0.01 u; reports log_density (no bound)."""


SMOKE = Config(steps=4, batch_size=16, init_batch=32, width=8, layers=1, eval_every=2, log_every=1)


def build(config: Config):
    """Images, and NICE fitted to them."""
    data = config.images()
    if math.prod(data.shape) % 2:
        raise UserError(
            f"--data {data.name}: has images {data.shape}; expected an even number of values, which"
            " the couplings halve; --size N crops and resizes to N x N"
        )
    nice = flows.nice((config.width,) * config.layers, config.couplings)
    flow = flows.chain(flows.flatten(data.shape), nice)
    fit = blog_likelihood if config.blog_noise else flow_likelihood
    return data, fit(flow, adam(config, len(data.train)), data, config)


def blog_likelihood(flow, optimizer, data, config):
    """Fits with the noise of post 5776: x / white - 0.01 u in training, no noise in the test.

    `log_density` is in nats and includes the Gaussian constant, which the post leaves out. The
    noise is narrower than one grey level, so it is not a codelength, and it grows with the model's
    sharpness; `bits_per_dim` is the valid bound of the same model.
    """
    white = data.levels - 1

    def noise(key, images):
        return images / white - 0.01 * jax.random.uniform(key, images.shape), 0.0

    method = flow_likelihood(flow, optimizer, data, config, noise=noise)

    def evaluate(state, batch, key):
        log_density = flows.log_prob(flow, state.ema, batch["image"] / white)
        return method.evaluate(state, batch, key) | {"log_density": log_density}

    density = "mean log-density of the test images without noise, in nats; higher is better"
    meanings = {**method.meanings, "log_density": density}
    return method._replace(evaluate=evaluate, meanings=meanings)


if __name__ == "__main__":
    launch(build, Config)
