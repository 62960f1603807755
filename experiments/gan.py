"""GANs of images: any loss with any gradient penalty, DCGAN or residual networks.

f-GAN (arXiv 1606.00709), WGAN-GP (1704.00028), WGAN-div (1712.01026), GAN-QP (1811.07296),
relativistic pairing with R1 + R2 (2501.05441), and others: see --loss and --penalty.

    python -m experiments.gan                            cfid 2.35 (0.99 of real images), 1 min
    python -m experiments.gan --loss qp_l2 --penalty none            GAN-QP, no constraint

Samples of the generator's running average are compared with the test images by the features of a
small classifier that is trained once (`cfid`; not comparable with FID). All losses: RESULTS.md.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.dataset import held_out
from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.pictures import figure, grid
from experiments.lib.sources.image_set import Images
from experiments.methods import features, judge
from experiments.methods.adversarial import (
    Game,
    Turn,
    adversarial,
    deal,
    generate,
    sampler,
    scores,
)
from experiments.methods.games import GanConfig


@dataclass(frozen=True)
class Config(GanConfig):
    """The knobs of the data."""

    conditional: bool = False
    """Tell both players the class."""
    held_out: bool = False
    """Judge by the last fifth of the training images, kept out of training: to choose knobs by."""


SMOKE = Config(
    steps=4, batch_size=16, width=4, noise=4, critic_updates=2, eval_every=2, log_every=1
)
_SIDE = 10  # images in a row and in a column of a sheet


def build(config: Config):
    """Images, and the game that generates such."""
    data = config.images()
    data = held_out(data) if config.held_out else data
    if config.conditional and not data.labelled:
        raise UserError(f"--conditional: expected a set with classes, {data.name} has no labels")
    game = config.game(data.shape)

    def turn(batch) -> Turn:
        classes = jax.nn.one_hot(batch["label"], data.classes) if config.conditional else None
        images = features.signed_pixels(batch["image"], data.levels)
        return jax.tree.map(lambda x: deal(x, config.critic_updates + 1), Turn(images, classes))

    fakes = sampler(game, every_class(data.classes) if config.conditional else None)

    def sample(players, key, count):
        return features.integer_pixels(fakes(players.ema, key, count), data.levels)

    return data, adversarial(
        game,
        turn,
        judge=judgement(config, data, fakes),
        pictures=pictures(config, game, data),
        sample=sample,
        batches_per_step=config.critic_updates + 1,
    )


def every_class(classes: int) -> Callable:
    """count -> one-hot classes 0, 1, ..., classes - 1, 0, 1, ...: [count, classes]."""
    return lambda count: jax.nn.one_hot(jnp.arange(count) % classes, classes)


def judgement(config: Config, data: Images, fakes: Callable):
    """The judge of the running average, and of the generator as it is: as many samples as reals."""
    count = len(data.test)
    if not judge.by_features(data):
        judge.check_pixels(data)

        @functools.cache
        def pixels():
            return features.signed_pixels(data.test[np.arange(count)]["image"], data.levels)

        def by_pixels(players, key):
            sample_key, key = jax.random.split(key)
            return judge.judge_pixels(pixels(), fakes(players.ema, sample_key, count), key)

        return by_pixels

    folder = features.folder(config.extractor_dir, config.workdir)

    @functools.cache
    def prepared():
        extractor = features.extractor(data, folder)
        real = judge.reference(data.test, data.levels, extractor, folder)
        return extractor, real, judge.floor(data, real, extractor, folder)

    def by_features(players, key):
        extractor, real, floor = prepared()
        sample_key, key = jax.random.split(key)
        raw = extractor.features(fakes(players.generator, sample_key, count))
        averaged = extractor.features(fakes(players.ema, sample_key, count))
        return {
            **judge.judge(real, averaged, key),
            "cfid_of_last": judge.cfid(real, raw),
            "cfid_of_real": floor["cfid"],
            "kid_of_real": floor["kid"],
        }

    return by_features


def pictures(config: Config, game: Game, data: Images):
    """Samples of one noise, interpolations between noises, and the critic's scores."""
    classes = max(1, data.classes)  # without labels the players are told none
    classes_of = every_class(classes)

    @jax.jit
    def draws(players, z):
        return generate(game, players.ema, z, classes_of(len(z)) if config.conditional else None)

    @jax.jit
    def score(players, x, told):
        return scores(game, players, x, told if config.conditional else None)

    def draw(players, batch, key):
        # Of a conditional game the classes follow each other: if there are ten, one in each column.
        noise = game.noise(key, 2 * _SIDE**2).reshape(2, _SIDE**2, -1)
        images = draws(players, noise[0])
        real = features.signed_pixels(batch["image"], data.levels)
        real_classes = jax.nn.one_hot(batch.get("label", jnp.zeros(len(real))), classes)

        def judged(x, told):
            whole = len(x) // config.pack * config.pack
            return score(players, x[:whole], told[:whole])

        by_kind = {
            "test images": judged(real, real_classes),
            "samples": judged(images, classes_of(len(images))),
        }
        return {
            "samples": _sheet(images),
            "interpolation": _sheet(draws(players, _paths(*noise))),
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
    return grid((jax.device_get(images) + 1) / 2, columns=_SIDE)


def _paths(starts, ends):
    """From one noise to another, a column each."""
    share = jnp.repeat(jnp.linspace(0, 1, _SIDE), _SIDE)[:, None]
    start, end = (jnp.tile(z[:_SIDE], (_SIDE, 1)) for z in (starts, ends))
    return slerp(start, end, share)


def slerp(start, end, share):
    """Interpolation over the sphere on which high-dimensional noise concentrates.

    cos(pi share / 2) start + sin(pi share / 2) end: for orthogonal ends of equal norm the norm is
    constant, as two draws of normal noise nearly are.
    """
    angle = jnp.pi / 2 * share
    return jnp.cos(angle) * start + jnp.sin(angle) * end


if __name__ == "__main__":
    launch(build, Config)
