"""Glow: multiscale flow with invertible 1x1 convolutions, on images."""

from dataclasses import dataclass
from typing import Literal

from experiments.lib.config import RunConfig, launch
from experiments.lib.data import load_images
from experiments.lib.likelihood import adam, maximum_likelihood
from experiments.lib.loop import train
from jaxgen import flows


@dataclass(frozen=True)
class Config(RunConfig):
    """Glow's knobs."""

    data: Literal["digits", "mnist", "fashion_mnist", "anime_faces", "cifar10"] = "digits"
    """Data set."""
    steps: int = 800
    """Training steps."""
    levels: int = 2
    """Scales; the image's sides must be multiples of 2^levels."""
    depth: int = 8
    """Steps of flow per scale."""
    width: int = 64
    """Hidden channels of the conditioners."""
    additive: bool = False
    """Additive couplings instead of affine ones."""
    shuffle: bool = False
    """Fixed random permutations instead of invertible 1x1 convolutions."""
    reversible: bool = True
    """Recompute activations from the inverse, so that memory does not grow with depth."""
    margin: float = 1e-5
    """Distance that the logit keeps from 0 and 1; dark images want it small."""
    learning_rate: float = 4e-3
    """Peak of the warm-up and cosine schedule."""
    prior: float = 3000.0
    """Precision of a Gaussian prior on the weights, in examples; it is decay prior / examples."""
    init_batch: int = 512
    """Images that set the first actnorm statistics."""


SMOKE = Config(steps=4, batch_size=16, init_batch=32, depth=1, width=8, eval_every=2, log_every=1)


def main(config: Config) -> dict:
    """Train Glow, draw pictures and return the summary."""
    data = load_images(config.data, config.data_dir)
    glow = flows.glow(
        config.levels,
        config.depth,
        config.width,
        transform=flows.additive() if config.additive else flows.affine(),
        mixing=flows.shuffle() if config.shuffle else flows.invertible_1x1(),
        reversible=config.reversible,
    )
    flow = flows.chain(flows.logit(config.margin), glow)
    optimizer = adam(config.learning_rate, config.steps, config.prior / len(data.train))
    method = maximum_likelihood(flow, optimizer, data)
    return train("glow", config, data=data, init_batch=config.init_batch, **method._asdict())


if __name__ == "__main__":
    launch(main, Config)
