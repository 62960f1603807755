"""Stacked digits: how many of 1,000 known modes a GAN finds.

Each channel of an image is a digit, so there are 1,000 classes; a classifier of single digits
counts them among 26,000 samples (Metz et al. 2016, arXiv 1611.02163; PacGAN, 1712.04086).
`modes` is the number of classes found, `kl` that of their shares to the uniform law, in nats.

    python -m experiments.stacked_mnist                  999 modes, kl 0.145, 1 min
    python -m experiments.stacked_mnist --data mnist --data-dir DIR      the customary one

Test images reach kl 0.025. Seven methods on MNIST: RESULTS.md.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.config import AtLeast
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.pictures import beside, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods import features, judge
from experiments.methods.adversarial import adversarial, sampler
from experiments.methods.games import GanConfig
from experiments.methods.players import Game, Turn, generate
from jaxgen import metrics


@dataclass(frozen=True)
class Config(GanConfig):
    """The knobs of the data: one grey image of it in each of three channels."""

    samples: Annotated[int, AtLeast(1)] = 26_000
    """Samples that are classified; the customary number."""


METRICS = judge.METRICS | {
    "modes": "modes, of 1,000, that the samples reach; higher is better",
    "kl": "KL divergence of the samples' modes from the uniform law, in nats; lower is better",
}
SMOKE = Config(
    steps=4, batch_size=16, width=4, noise=4, pack=2, samples=100, eval_every=2, log_every=1
)
CHANNELS, CLASSES = 3, 10


def build(config: Config):
    """Grey images of ten classes, and the game that generates stacks of three."""
    data = config.images()
    if data.shape[2] != 1 or data.classes != CLASSES:
        raise UserError(
            f"--data {data.name}: has {data.shape[2]} channels and {data.classes or 'no'} classes;"
            f" expected grey images of {CLASSES} classes, such as mnist"
        )
    game = config.game((*data.shape[:2], CHANNELS))
    updates = config.critic_updates + 1

    def turn(batch) -> Turn:
        # The examples stay the outer axis: so they remain split over the devices.
        images = features.signed_pixels(batch["image"][..., 0], data.levels)
        images = images.reshape(-1, updates, CHANNELS, *data.shape[:2])
        return Turn(images.transpose(1, 0, 3, 4, 2))

    fakes = sampler(game)

    def sample(players, key, count):
        return features.integer_pixels(fakes(players.ema, key, count), data.levels)

    return data, adversarial(
        game,
        turn,
        judge=judgement(config, data, fakes),
        pictures=pictures(game, data),
        sample=sample,
        batches_per_step=CHANNELS * updates,
        meanings=METRICS,
    )


def judgement(config: Config, data: Images, fakes: Callable):
    """The judge of the modes that the running average finds."""

    @functools.cache
    def classifier():
        return features.extractor(data, features.folder(config.extractor_dir, config.workdir))

    def modes(images):
        """Captured modes and KL to the uniform law of [N, H, W, 3]."""
        digits = np.stack([classifier().classify(images[..., i, None]) for i in range(CHANNELS)])
        names = np.ravel_multi_index(tuple(digits), (CLASSES,) * CHANNELS)
        counts = jnp.bincount(names, length=CLASSES**CHANNELS)
        return float(metrics.captured_modes(counts)), float(metrics.kl_to_uniform(counts))

    @functools.cache
    def floor():
        """What a perfect sampler would get: triples of test images, as many as samples."""
        places = np.random.default_rng(0).integers(len(data.test), size=(config.samples, CHANNELS))
        real = features.signed_pixels(data.test[places]["image"][..., 0], data.levels)
        return modes(real.transpose(0, 2, 3, 1))

    def by_modes(players, key):
        found, real = modes(fakes(players.ema, key, config.samples)), floor()
        return {
            "modes": found[0],
            "kl": found[1],
            "modes_of_real": real[0],
            "kl_of_real": real[1],
            "samples": float(config.samples),
            **classifier().facts,
        }

    return by_modes


def pictures(game: Game, data: Images):
    """Samples beside stacks of three test images."""

    @jax.jit
    def draws(players, z):
        return generate(game, players.ema, z)

    def draw(players, batch, key):
        images = (jax.device_get(draws(players, game.noise(key, 100))) + 1) / 2
        grey = np.asarray(batch["image"][:60]) / np.float32(data.levels - 1)
        stacks = np.concatenate([np.roll(grey, 7 * i, axis=0) for i in range(CHANNELS)], axis=-1)
        return {
            "samples": beside(
                sheet(images, 10, "samples of the running average; a digit in each colour"),
                sheet(stacks, 10, "stacks of three test images"),
            )
        }

    return draw


if __name__ == "__main__":
    launch(build, Config)
