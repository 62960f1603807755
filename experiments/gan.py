"""GANs of images: any loss with any gradient penalty, DCGAN or residual networks.

f-GAN (arXiv 1606.00709), WGAN-GP (1704.00028), WGAN-div (1712.01026), GAN-QP (1811.07296),
relativistic pairing with R1 + R2 (2501.05441), and others: see --loss and --penalty.

    python -m experiments.gan                            cfid 2.24 (0.98 of real images), 1 min
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

from experiments.lib.errors import UserError
from experiments.lib.launch import launch
from experiments.lib.pictures import beside, figure, sheet
from experiments.lib.sources.image_set import Images
from experiments.methods import features, judge, pixel_judge
from experiments.methods.adversarial import adversarial, deal, sampler
from experiments.methods.games import GanConfig
from experiments.methods.players import Game, Turn, generate, scores


@dataclass(frozen=True)
class Config(GanConfig):
    """The knobs of the data."""

    conditional: bool = False
    """Tell both players the class."""


SMOKE = Config(
    steps=4, batch_size=16, width=4, noise=4, critic_updates=2, eval_every=2, log_every=1
)
METRICS = judge.METRICS | {
    "cfid_of_last": "cfid of the generator as it is; the other numbers judge its running average",
    "class_accuracy": "share of the samples in which the classifier sees the class asked for",
}
_SIDE = 10  # images in a row and in a column of a sheet


def build(config: Config):
    """Images, and the game that generates such."""
    data = config.images()
    if config.conditional and not data.labelled:
        raise UserError(f"--conditional: expected a set with classes, {data.name} has no labels")
    game = config.game(data.shape)

    def turn(batch) -> Turn:
        classes = jax.nn.one_hot(batch["label"], data.classes) if config.conditional else None
        images = features.signed_pixels(batch["image"], data.levels)
        return jax.tree.map(lambda x: deal(x, config.critic_updates + 1), Turn(images, classes))

    told = functools.partial(every_class, classes=data.classes) if config.conditional else None
    fakes = sampler(game, told)

    def sample(players, key, count):
        return features.integer_pixels(fakes(players.ema, key, count), data.levels)

    return data, adversarial(
        game,
        turn,
        judge=judgement(config, data, fakes),
        pictures=pictures(config, game, data),
        sample=sample,
        batches_per_step=config.critic_updates + 1,
        meanings=METRICS,
    )


def every_class(numbers, classes: int):
    """One-hot classes of the numbers 0, 1, ...; the classes take turns: [B] -> [B, classes]."""
    return jax.nn.one_hot(numbers % classes, classes)


def judgement(config: Config, data: Images, fakes: Callable):
    """Judges the running average by as many samples as there are test images.

    Each number stands beside that of real training images, NAME_of_real. cfid_of_last is that of
    the generator as it is, not averaged. class_accuracy, of a conditional game, is how often the
    classifier sees the class that was asked for, over samples that are equally many of each class;
    its ceiling is about classifier_accuracy.
    """
    folder = features.folder(config.extractor_dir, config.workdir)

    def averaged(players, key, count):
        return fakes(players.ema, key, count)

    def more(extractor, real, samples, players, key):
        last = extractor.features(fakes(players.generator, key, len(samples)))
        found = {"cfid_of_last": judge.cfid(real, last)}
        if config.conditional:
            hits = extractor.classify(samples) == np.arange(len(samples)) % data.classes
            found["class_accuracy"] = float(np.mean(hits))
        return found

    if judge.by_features(data):
        return judge.features_judge(data, folder, averaged, more)
    return pixel_judge.by_pixels(data, folder, averaged)


def pictures(config: Config, game: Game, data: Images):
    """Samples beside test images, interpolations between noises, and the critic's scores."""
    classes = max(1, data.classes)  # without labels the players are told none
    told_classes = config.conditional and classes == _SIDE
    classes_named = "; column i: class i" if told_classes else ""

    @jax.jit
    def draws(players, z):
        told = every_class(jnp.arange(len(z)), classes) if config.conditional else None
        return generate(game, players.ema, z, told)

    @jax.jit
    def score(players, x, told):
        return scores(game, players, x, told if config.conditional else None)

    def draw(players, batch, key):
        # Of a conditional game the classes follow each other: if there are ten, one in each column.
        noise = game.noise(key, 2 * _SIDE**2).reshape(2, _SIDE**2, -1)
        images = draws(players, noise[0])
        real = features.signed_pixels(batch["image"], data.levels)
        real_classes = jax.nn.one_hot(batch.get("label", jnp.zeros(len(real), jnp.int32)), classes)

        def judged(x, told):
            whole = len(x) // config.pack * config.pack
            return score(players, x[:whole], told[:whole])

        by_kind = {
            "test images": judged(real, real_classes),
            "samples": judged(images, every_class(jnp.arange(len(images)), classes)),
        }
        whole_rows = len(real) // _SIDE * _SIDE
        return {
            "samples": beside(
                _sheet(images, "samples of the running average" + classes_named),
                _sheet(real[:whole_rows], "test images"),
            ),
            "interpolation": _sheet(
                draws(players, _paths(*noise)),
                "each column: over the sphere from one noise to another" + classes_named,
            ),
            "scores": figure(lambda drawing: _histograms(drawing, by_kind)),
        }

    return draw


def _histograms(drawing, by_kind) -> None:
    values = {name: np.asarray(v)[np.isfinite(v)] for name, v in by_kind.items()}
    bins = np.histogram_bin_edges(np.concatenate([*values.values()]), 30)
    axis = drawing.subplots()
    for name, own in values.items():
        axis.hist(own, bins=bins, alpha=0.6, label=f"{len(own)} scores of {name}")
    axis.set(
        title="the critic's scores of samples and test images",
        xlabel="score; the higher, the more real",
        ylabel="number of scores in the bin",
    )
    drawing.legend(loc="outside lower center", ncols=2)


def _sheet(images, title: str):
    return sheet((jax.device_get(images) + 1) / 2, _SIDE, title)


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
