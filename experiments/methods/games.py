"""The losses, penalties and networks that GAN experiments choose from, and their flags."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.lib.config import CHANGEABLE, FOLDER, AtLeast, Below
from experiments.lib.errors import UserError
from experiments.lib.sources.images import ImageConfig
from experiments.methods.players import Game, Loss
from jaxgen import divergences, losses, models, regularizers
from jaxgen.models.resampling import doublings


def _independent(critic_loss: Callable, generator_loss: Callable) -> Loss:
    """Losses that compare no real example with a fake one."""
    return Loss(
        lambda v_real, v_fake, real, fake: critic_loss(v_real, v_fake),
        lambda v_real, v_fake: generator_loss(v_fake),
    )


def qp(distance: Callable, slope: float = 10.0) -> Loss:
    """GAN-QP with a distance of `jaxgen.losses`."""
    return Loss(
        lambda v_real, v_fake, real, fake: losses.qp_critic_loss(
            v_real, v_fake, distance(real, fake), slope
        ),
        losses.qp_generator_loss,
    )


def f_gan(divergence: divergences.FDivergence, heuristic: bool = False) -> Loss:
    """f-GAN; the generator minimises the bound itself, or the heuristic loss."""
    generator = losses.f_gan_heuristic_generator_loss if heuristic else losses.f_gan_generator_loss
    return _independent(
        lambda v_real, v_fake: losses.f_gan_critic_loss(divergence, v_real, v_fake),
        lambda v_fake: generator(divergence, v_fake),
    )


_DIVERGENCES = {
    "kl": divergences.kl(),
    "reverse_kl": divergences.reverse_kl(),
    "jensen_shannon": divergences.jensen_shannon(),
    "jeffreys": divergences.jeffreys(),
    "chi_square_over_q": divergences.chi_square_over_q(),
    "chi_square_over_p": divergences.chi_square_over_p(),
    "squared_hellinger": divergences.squared_hellinger(),
    "total_variation": divergences.total_variation(),
}

LOSSES: Mapping[str, Loss] = {
    "non_saturating": _independent(
        losses.logistic_critic_loss, losses.non_saturating_generator_loss
    ),
    "saturating": _independent(losses.logistic_critic_loss, losses.saturating_generator_loss),
    "least_squares": _independent(
        losses.least_squares_critic_loss, losses.least_squares_generator_loss
    ),
    "hinge": _independent(losses.hinge_critic_loss, losses.wasserstein_generator_loss),
    "wasserstein": _independent(losses.wasserstein_critic_loss, losses.wasserstein_generator_loss),
    "relativistic": Loss(
        lambda v_real, v_fake, real, fake: losses.relativistic_critic_loss(v_real, v_fake),
        losses.relativistic_generator_loss,
    ),
    "qp_l1": qp(losses.mean_absolute_distance),
    "qp_l2": qp(losses.root_mean_square_distance),
    **{name: f_gan(record) for name, record in _DIVERGENCES.items()},
    **{f"{name}_heuristic": f_gan(record, True) for name, record in _DIVERGENCES.items()},
}
"""Losses by name; each divergence of f-GAN also as NAME_heuristic."""

POINTS: Mapping[str, Callable] = {
    "between": regularizers.interpolate,
    "within": regularizers.interpolate_within,
    "pooled": regularizers.interpolate_pooled,
    "both": lambda key, real, fake: jnp.concatenate([real, fake]),
    "fake": lambda key, real, fake: fake,
    "real": lambda key, real, fake: real,
}
"""The points at which a penalty takes gradients, the six choices of WGAN-div, by name.

Each is (key, real, fake) -> points.
"""


def penalties(points: str = "between", power: float = 6.0) -> Mapping[str, Callable]:
    """The penalties by name, each (critic, real, fake, key) -> [B].

    Args:
      points: the name in `POINTS` of the points for "gp", "lp" and "div"; the definition of each
        other penalty fixes its points.
      power: p of "div".
    """
    place = POINTS[points]

    def at(where: Callable, penalty: Callable) -> Callable:
        return lambda critic, real, fake, key: penalty(critic, where(key, real, fake))

    def power_penalty(critic, x):
        return regularizers.gradient_power_penalty(critic, x, power)

    def around(key, real, fake):
        return regularizers.dragan_points(key, real)

    one, zero = (
        regularizers.one_centered_gradient_penalty,
        regularizers.zero_centered_gradient_penalty,
    )
    return {
        "gp": at(place, one),
        "lp": at(place, regularizers.one_sided_gradient_penalty),
        "div": at(place, power_penalty),
        "dragan": at(around, one),
        "r1": at(POINTS["real"], zero),
        # The mean over both kinds of points is half the sum of R1 and R2.
        "r1_r2": at(POINTS["both"], zero),
    }


USUAL_WEIGHTS = {"none": 0.0, "gp": 10.0, "lp": 10.0, "dragan": 10.0, "div": 2.0, "r1": 0.5}
USUAL_WEIGHTS["r1_r2"] = 1.0  # gamma; the weight of r1 is gamma / 2

NORMS: Mapping[str, Callable | None] = {
    "none": None,
    "layer": partial(nn.GroupNorm, num_groups=1),
    "group": partial(nn.GroupNorm, num_groups=8),
    "batch": partial(nn.BatchNorm, use_running_average=False),
}
"""Normalizations by name; "layer" is over height, width and channels, as in WGAN-GP's code."""


@dataclass(frozen=True)
class GanConfig(ImageConfig):
    """The flags of every GAN of images."""

    batch_size: int = 64
    """Real examples per update, over all devices; a step takes critic_updates + 1 times as many."""
    loss: str = "relativistic"
    """non_saturating, saturating, least_squares, hinge, wasserstein, relativistic, qp_l1, qp_l2, or
    an f-GAN: kl, reverse_kl, jensen_shannon, jeffreys, chi_square_over_q, chi_square_over_p,
    squared_hellinger, total_variation, each also with the generator's heuristic loss, as
    kl_heuristic."""
    penalty: Literal["none", "gp", "lp", "dragan", "div", "r1", "r1_r2"] = "r1_r2"
    """Penalty of the critic's gradient: WGAN-GP's, its one-sided form, DRAGAN's, WGAN-div's, R1, or
    R1 + R2."""
    penalty_weight: Annotated[float | None, AtLeast(0)] = None
    """Weight of the penalty (r1: gamma / 2, r1_r2: gamma, div: k); unset: 10, but 2 of div, 0.5 of
    r1, 1 of r1_r2."""
    points: Literal["between", "within", "pooled", "both", "fake", "real"] = "between"
    """Points at which gp, lp and div take gradients: between a real and a fake example, between two
    of one kind, between any two, at both kinds, or at one kind alone."""
    power: Annotated[float, AtLeast(2)] = 6.0
    """p of div."""
    clip: Annotated[float, AtLeast(0)] = 0.0
    """Clip the critic's weights to [-clip, clip] after each update (WGAN: 0.01); 0: no clipping."""
    spectral_norm: bool = False
    """Spectral normalization of the critic."""
    pack: Annotated[int, AtLeast(1)] = 1
    """Examples that the critic judges at once (PacGAN)."""
    critic_updates: Annotated[int, AtLeast(1)] = 1
    """Updates of the critic, each on its own examples, for one of the generator."""
    network: Literal["dcgan", "residual"] = "dcgan"
    """Architecture of both."""
    width: Annotated[int, AtLeast(1)] = 32
    """Channels next to the image (dcgan), or everywhere (residual)."""
    generator_norm: Literal["none", "layer", "group", "batch"] = "batch"
    """Normalization in the generator."""
    critic_norm: Literal["none", "layer", "group", "batch"] = "none"
    """Normalization in the critic; batch needs --penalty none."""
    noise: Annotated[int, AtLeast(1)] = 64
    """Dimensions of the generator's input, standard normal."""
    learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Adam's step size of the generator."""
    critic_learning_rate: Annotated[float, AtLeast(0)] = 1e-3
    """Adam's step size of the critic."""
    beta1: Annotated[float, AtLeast(0), Below(1)] = 0.5
    """Adam's decay of the mean of gradients, of both."""
    beta2: Annotated[float, AtLeast(0), Below(1)] = 0.99
    """Adam's decay of the mean of squares, of both."""
    ema_decay: Annotated[float, AtLeast(0), Below(1)] = 0.999
    """Decay of the running average of the generator, from which results come."""
    steps: int = 4000
    """Updates of the generator."""
    eval_every: int = 2000
    """Steps between two judgements, with pictures; 0: only at the end."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; 0: only at the end."""
    extractor_dir: Annotated[str, CHANGEABLE, FOLDER] = ""
    """Folder of the classifier by which samples are judged; empty: extractors/ beside the run."""

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise UserError(f"--loss {self.loss}: expected one of {', '.join(LOSSES)}")
        if self.batch_size % self.pack:
            raise UserError(
                f"--batch-size {self.batch_size}: expected a multiple of --pack {self.pack}"
            )
        if self.critic_norm == "batch" and self.penalty != "none":
            raise UserError(
                f"--critic-norm batch: expected layer, group or none with --penalty {self.penalty},"
                " which is of the gradient at single examples: batch normalization mixes them; or"
                " --penalty none"
            )

    def game(self, shape: tuple[int, int, int]) -> Game:
        """The game for images of this shape.

        Raises:
          UserError: the network cannot make them.
        """
        _check_sides(self.network, shape)
        generators = {"dcgan": models.DCGANGenerator, "residual": models.ResidualGenerator}
        critics = {"dcgan": models.DCGANCritic, "residual": models.ResidualCritic}
        norm = NORMS[self.generator_norm]
        fixed = partial(nn.BatchNorm, use_running_average=True)
        generator = generators[self.network](shape, width=self.width, norm=norm)
        weight = USUAL_WEIGHTS[self.penalty] if self.penalty_weight is None else self.penalty_weight

        def adam(rate):
            return optax.adam(rate, b1=self.beta1, b2=self.beta2)

        return Game(
            loss=LOSSES[self.loss],
            critic=critics[self.network](width=self.width, norm=NORMS[self.critic_norm]),
            generator=generator,
            sampler=generator.copy(norm=fixed) if self.generator_norm == "batch" else generator,
            critic_optimizer=adam(self.critic_learning_rate),
            generator_optimizer=adam(self.learning_rate),
            noise=lambda key, count: jax.random.normal(key, (count, self.noise)),
            penalty=penalties(self.points, self.power).get(self.penalty),
            weight=weight,
            ema_decay=self.ema_decay,
            spectral=self.spectral_norm,
            clip=self.clip,
            pack=self.pack,
        )


def _check_sides(network: str, shape: tuple[int, int, int]) -> None:
    """Networks double the sides; the critic of the DCGAN needs to halve them at least once."""
    try:
        possible = doublings(shape) > 0 or network == "residual"
    except ValueError:
        possible = False
    if not possible:
        height, width, _ = shape
        raise UserError(
            f"--network {network}: the images have {width}x{height} pixels; expected sides that"
            " can be halved until both are 7 or less, such as 28, 32, 48 or 64; --size 32 crops and"
            " resizes to 32x32"
        )
