"""GANs of images: any loss with any gradient penalty, DCGAN or residual networks, judged alike.

(docstring to come) arXiv
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib import features, judge
from experiments.lib.adversarial import Game, Turn, begin, play, sample, samples, scores
from experiments.lib.config import launch
from experiments.lib.data import Images, held_out, load_images
from experiments.lib.errors import UserError
from experiments.lib.games import GanConfig
from experiments.lib.loop import train
from experiments.lib.pictures import figure, grid


@dataclass(frozen=True)
class Config(GanConfig):
    """The knobs of the data."""

    data: Literal["digits", "mnist", "fashion_mnist", "cifar10_jpeg", "anime_faces"] = "digits"
    """Data set."""
    steps: int = 4000
    """Updates of the generator."""
    eval_every: int = 2000
    """Steps between two judgements, with pictures; 0: only at the end."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; 0: only at the end."""
    conditional: bool = False
    """Tell both players the class."""
    held_out: bool = False
    """Judge by the last fifth of the training images, kept out of training: to choose knobs by."""
    extractor_dir: str = ""
    """Folder that keeps the classifier by which samples are judged; empty: beside the run's."""


SMOKE = Config(
    steps=4, batch_size=16, width=4, noise=4, critic_updates=2, eval_every=2, log_every=1
)
CLASSES = 10


def main(config: Config) -> dict:
    """Train, judge the samples, draw pictures and return the summary."""
    data = load_images(config.data, config.data_dir)
    data = held_out(data) if config.held_out else data
    if config.conditional and "label" not in data.train[np.arange(1)]:
        raise UserError(f"--conditional: expected a set with classes, {data.name} has no labels")
    game = config.game(data.shape)

    def turn(batch) -> Turn:
        def deal(x):
            # The examples stay the outer axis: so they remain split over the devices.
            return x.reshape(config.batch_size, -1, *x.shape[1:]).swapaxes(0, 1)

        classes = jax.nn.one_hot(batch["label"], CLASSES) if config.conditional else None
        images = features.signed_pixels(batch["image"], data.levels)
        return jax.tree.map(deal, Turn(images, classes))

    def init(key, batch):
        return begin(game, key, *jax.tree.map(lambda x: x[0], turn(batch)))

    def step(players, batch, key):
        return play(game, players, turn(batch), key)

    @jax.jit
    def generate(variables, z):
        classes = jax.nn.one_hot(jnp.arange(len(z)) % CLASSES, CLASSES)
        return sample(game, variables, z, classes if config.conditional else None)

    return train(
        "gan",
        config,
        init=init,
        step=step,
        judge=judgement(config, game, data, generate),
        pictures=pictures(config, game, data, generate),
        data=data,
        batches_per_step=config.critic_updates + 1,
    )


def judgement(config: Config, game: Game, data: Images, generate):
    """The judge of the running average, and of the generator as it is: as many samples as reals."""

    def fakes(variables, key):
        return samples(game, generate, variables, key, len(data.test))

    if "label" not in data.test[np.arange(1)]:
        pixels = features.signed_pixels(data.test[np.arange(len(data.test))]["image"], data.levels)

        def by_pixels(players, key):
            sample_key, key = jax.random.split(key)
            return judge.judge_pixels(pixels, fakes(players.average, sample_key), key)

        return by_pixels

    folder = features.folder(config.extractor_dir, config.workdir)
    extractor = features.extractor(data, folder)
    real = judge.reference(data.test, data.levels, extractor, folder)
    floor = judge.floor(data, real, extractor, folder)

    def by_features(players, key):
        sample_key, key = jax.random.split(key)
        raw = extractor.features(fakes(players.generator, sample_key))
        found = judge.judge(real, extractor.features(fakes(players.average, sample_key)), key)
        return {
            **found,
            "cfid_of_last": judge.cfid(real, raw),
            "cfid_of_real": floor["cfid"],
            "kid_of_real": floor["kid"],
        }

    return by_features


def pictures(config: Config, game: Game, data: Images, generate):
    """Samples of one noise, ways from noise to noise, and the critic's scores."""

    @jax.jit
    def score(players, x, classes):
        return scores(game, players, x, classes if config.conditional else None)

    def draw(players, batch, key):
        # Class i of ten in column i, where there are classes.
        noise = game.noise(key, 2 * CLASSES**2).reshape(2, CLASSES**2, -1)
        images = generate(players.average, noise[0])
        classes = jax.nn.one_hot(jnp.arange(len(images)) % CLASSES, CLASSES)
        real = features.signed_pixels(batch["image"], data.levels)
        real_classes = jax.nn.one_hot(batch.get("label", jnp.zeros(len(real))), CLASSES)

        def judged(x, classes):
            whole = len(x) // config.pack * config.pack
            return score(players, x[:whole], classes[:whole])

        by_kind = {"test images": judged(real, real_classes), "samples": judged(images, classes)}
        return {
            "samples": _sheet(images),
            "interpolation": _sheet(generate(players.average, _ways(*noise))),
            "scores": figure(lambda sheet: _histograms(sheet, by_kind)),
        }

    return draw


def _histograms(sheet, by_kind) -> None:
    axis = sheet.subplots()
    for name, values in by_kind.items():
        axis.hist(np.asarray(values), bins=30, alpha=0.6, label=name)
    axis.set_xlabel("score of the critic; the higher, the more real")
    axis.legend()


def _sheet(images):
    return grid((jax.device_get(images) + 1) / 2, columns=CLASSES)


def _ways(starts, ends):
    """From one noise to another, a column each, over the sphere that noise of its size lies on."""
    angle = jnp.repeat(jnp.linspace(0, jnp.pi / 2, CLASSES), CLASSES)[:, None]
    start, end = (jnp.tile(z[:CLASSES], (CLASSES, 1)) for z in (starts, ends))
    return jnp.cos(angle) * start + jnp.sin(angle) * end


if __name__ == "__main__":
    launch(main, Config)
