"""Stacked digits: of 1,000 modes known by name, how many does a GAN find.

Three digits, one in each channel, are one of 1,000 classes; a classifier of single digits counts
them among 26,000 samples (Metz et al. 2016, arXiv 1611.02163; Lin et al. 2017, PacGAN,
1712.04086). Reported are `modes`, the classes with a sample or more, and `kl`, that of their shares
to the uniform law, in nats; the same of triples of real test images stands beside them. Triples are
drawn anew for every batch, from the training images.

    python -m experiments.stacked_mnist                  1000 modes, kl 0.113 (0.025 of real), 1 min
    python -m experiments.stacked_mnist --seeds 3                                       2 min
    python -m experiments.stacked_mnist --data mnist --data-dir DIR             the customary one

On the 8x8 digits, relativistic pairing with R1 + R2: 1000 modes and a kl of 0.135 +- 0.010 over the
seeds 0 to 2 (JAX 0.10.2, CPU); the classifier has 95.6 % of the test digits right.

On MNIST, 2,000 updates of either player, width 16, the seeds 0 to 2, after the last step (commit
ca8de83; the classifier has 99.2 % of the test digits right); a row takes 6 minutes of one CPU core:

    python -m experiments.stacked_mnist --data mnist --data-dir DIR --width 16 --steps 2000 \
        --seeds 3 --eval-every 0 --loss LOSS --penalty PENALTY     (k: --penalty-weight)

    loss, penalty              modes          kl
    non_saturating             830 +- 85      1.14 +- 0.35
    non_saturating, --pack 2   829 +- 70      1.02 +- 0.19
    wasserstein, gp            938 +- 2       0.78 +- 0.06
    wasserstein, div, k = 2    941 +- 14      0.81 +- 0.07
    wasserstein, div, k = 10   936 +- 17      0.82 +- 0.05
    qp_l1                      950 +- 5       0.72 +- 0.03
    qp_l2                      950 +- 17      0.75 +- 0.09
    relativistic, r1_r2        962 +- 6       0.71 +- 0.03
    triples of test images     1000           0.025

So short a training shows who finds modes first, not who keeps them: published, with other networks
and longer, are DCGAN 99 modes and 3.40, PacDCGAN2 1000 and 0.06 (1712.04086, tables 2 and 3).
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
from experiments.lib.pictures import grid
from experiments.lib.sources.image_set import Images
from experiments.methods import features
from experiments.methods.adversarial import Game, Turn, adversarial, generate, sampler
from experiments.methods.games import GanConfig
from jaxgen import metrics


@dataclass(frozen=True)
class Config(GanConfig):
    """The knobs of the data: one grey image of it in each of three channels."""

    samples: Annotated[int, AtLeast(1)] = 26_000
    """Samples that are classified; the customary number."""


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
        pictures=pictures(game),
        sample=sample,
        batches_per_step=CHANNELS * updates,
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

    def judge(players, key):
        found, real = modes(fakes(players.ema, key, config.samples)), floor()
        return {
            "modes": found[0],
            "kl": found[1],
            "modes_of_real": real[0],
            "kl_of_real": real[1],
            "classifier_accuracy": classifier().accuracy,
        }

    return judge


def pictures(game: Game):
    """A sheet of samples."""

    @jax.jit
    def draws(players, z):
        return generate(game, players.ema, z)

    def draw(players, batch, key):
        images = draws(players, game.noise(key, 100))
        return {"samples": grid((jax.device_get(images) + 1) / 2, columns=10)}

    return draw


if __name__ == "__main__":
    launch(build, Config)
