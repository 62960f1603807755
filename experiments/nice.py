"""NICE: additive couplings and one diagonal scaling, on flattened images."""

from dataclasses import dataclass
from typing import Literal

import jax

from experiments.lib.config import RunConfig, launch
from experiments.lib.data import load_images
from experiments.lib.likelihood import adam, maximum_likelihood
from experiments.lib.loop import train
from jaxgen import flows


@dataclass(frozen=True)
class Config(RunConfig):
    """NICE's knobs."""

    data: Literal["digits", "mnist", "fashion_mnist", "anime_faces", "cifar10"] = "digits"
    """Data set."""
    steps: int = 3000
    """Training steps."""
    couplings: int = 4
    """Coupling layers."""
    width: int = 256
    """Units of each hidden layer."""
    layers: int = 3
    """Hidden layers of each coupling."""
    post_recipe: bool = False
    """Train as the post does, on x / 255 - 0.01 u, and report its log-density too (no bound)."""
    learning_rate: float = 1e-3
    """Peak of the warm-up and cosine schedule."""
    prior: float = 3000.0
    """Precision of a Gaussian prior on the weights, in examples; it is decay prior / examples."""
    init_batch: int = 512
    """Images that set the first scales."""


SMOKE = Config(steps=4, batch_size=16, init_batch=32, width=8, layers=1, eval_every=2, log_every=1)


def main(config: Config) -> dict:
    """Train NICE, draw pictures and return the summary."""
    data = load_images(config.data, config.data_dir)
    flow = flows.chain(
        flows.flatten(data.shape), flows.nice((config.width,) * config.layers, config.couplings)
    )
    optimizer = adam(config.learning_rate, config.steps, config.prior / len(data.train))
    method = maximum_likelihood(flow, optimizer, data)
    if config.post_recipe:
        method = post_recipe(flow, optimizer, data)
    return train("nice", config, data=data, init_batch=config.init_batch, **method._asdict())


def post_recipe(flow, optimizer, data):
    """Noise and measure of Su Jianlin's post 5776: x / 255 - 0.01 u in training, none in the test.

    `log_density` is in nats, with the Gaussian constant that the post leaves out. The noise is
    narrower than a pixel value is wide, so it is no codelength and grows with the model's
    sharpness; `bits_per_dim` beside it is the valid bound for the same model.
    """
    white = data.levels - 1

    def noise(key, images):
        return images / white - 0.01 * jax.random.uniform(key, images.shape), 0.0

    method = maximum_likelihood(flow, optimizer, data, noise=noise)

    def evaluate(state, batch, key):
        log_density = flows.log_prob(flow, state.average, batch["image"] / white)
        return method.evaluate(state, batch, key) | {"log_density": log_density}

    return method._replace(evaluate=evaluate)


if __name__ == "__main__":
    launch(main, Config)
