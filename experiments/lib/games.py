"""The games that GAN experiments choose from: losses, penalties, networks, and their knobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.lib.adversarial import Game, Loss
from experiments.lib.config import RunConfig, flag
from experiments.lib.errors import UserError
from jaxgen import divergences, losses, models, regularizers


def _independent(critic_loss: Callable, generator_loss: Callable) -> Loss:
    """Losses whose real and fake examples do not meet."""
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
    """f-GAN, the generator by the bound itself or by the heuristic loss."""
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
"""By name; f-GAN's divergences also as NAME_heuristic."""

POINTS: Mapping[str, Callable] = {
    "between": regularizers.interpolate,
    "within": regularizers.interpolate_within,
    "pooled": regularizers.interpolate_pooled,
    "both": lambda key, real, fake: jnp.concatenate([real, fake]),
    "fake": lambda key, real, fake: fake,
    "real": lambda key, real, fake: real,
}
"""Where a penalty looks: the six choices of WGAN-div, (key, real, fake) -> points."""


def penalties(points: str = "between", power: float = 6.0) -> Mapping[str, Callable]:
    """The penalties by name, each (critic, real, fake, key) -> [B].

    Args:
      points: where "gp", "lp" and "div" look, a name in `POINTS`; the others are made for theirs.
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
USUAL_WEIGHTS["r1_r2"] = 1.0  # gamma, where R1's is gamma / 2

NORMS: Mapping[str, Callable | None] = {
    "none": None,
    "layer": partial(nn.GroupNorm, num_groups=1),
    "group": partial(nn.GroupNorm, num_groups=8),
    "batch": partial(nn.BatchNorm, use_running_average=False),
}
"""By name; "layer" is over height, width and channels, as in the code of WGAN-GP."""


@dataclass(frozen=True)
class GanConfig(RunConfig):
    """The knobs that every GAN of images has."""

    batch_size: int = 64
    """Real examples per update, over all devices; a step takes critic_updates + 1 times as many."""
    loss: str = "relativistic"
    """non_saturating, saturating, least_squares, hinge, wasserstein, relativistic, qp_l1, qp_l2, or
    an f-GAN: kl, reverse_kl, jensen_shannon, jeffreys, chi_square_over_q, chi_square_over_p,
    squared_hellinger, total_variation, each also with the generator's heuristic loss, as
    kl_heuristic."""
    penalty: Literal["none", "gp", "lp", "dragan", "div", "r1", "r1_r2"] = "r1_r2"
    """Of the critic's slope: WGAN-GP's, its one-sided form, DRAGAN's, WGAN-div's, R1, R1 + R2."""
    penalty_weight: float | None = None
    """Weight of the penalty (r1: gamma / 2, r1_r2: gamma, div: k); unset: 10, but 2 of div, 0.5 of
    r1, 1 of r1_r2."""
    points: Literal["between", "within", "pooled", "both", "fake", "real"] = "between"
    """Where gp, lp and div look: between real and fake, between two of one kind, between any two,
    at both, at one kind alone."""
    power: float = 6.0
    """p of div."""
    clip: float = 0.0
    """The critic's weights are held to [-clip, clip] (WGAN: 0.01); 0: they are not."""
    spectral_norm: bool = False
    """Spectral normalization of the critic."""
    pack: int = 1
    """Examples that the critic judges at once (PacGAN)."""
    critic_updates: int = 1
    """Updates of the critic, each on its own examples, for one of the generator."""
    network: Literal["dcgan", "residual"] = "dcgan"
    """Architecture of both."""
    width: int = 32
    """Channels next to the image (dcgan), or everywhere (residual)."""
    generator_norm: Literal["none", "layer", "group", "batch"] = "batch"
    """Normalization in the generator."""
    critic_norm: Literal["none", "layer", "group", "batch"] = "none"
    """Normalization in the critic; batch goes with no penalty."""
    noise: int = 64
    """Dimensions of the generator's input, standard normal."""
    learning_rate: float = 1e-3
    """Adam's step size of the generator."""
    critic_learning_rate: float = 1e-3
    """Adam's step size of the critic."""
    beta1: float = 0.5
    """Adam's decay of the mean of gradients, of both."""
    beta2: float = 0.99
    """Adam's decay of the mean of squares, of both."""
    average_decay: float = 0.999
    """Decay of the running average of the generator, from which results come."""

    LEAST: ClassVar = RunConfig.LEAST | {
        "power": 2,
        "clip": 0,
        "pack": 1,
        "critic_updates": 1,
        "width": 1,
        "noise": 1,
        "learning_rate": 0,
        "critic_learning_rate": 0,
        "beta1": 0,
        "beta2": 0,
        "average_decay": 0,
    }

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES:
            raise UserError(f"--loss {self.loss}: expected one of {', '.join(LOSSES)}")
        if self.penalty_weight is not None and not 0 <= self.penalty_weight < float("inf"):
            raise UserError(f"--penalty-weight {self.penalty_weight}: expected a number >= 0")
        for name in ("beta1", "beta2", "average_decay"):
            if getattr(self, name) >= 1:
                raise UserError(f"{flag(name)} {getattr(self, name)}: expected a number below 1")
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
        """The game for images of this shape."""
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
            average_decay=self.average_decay,
            spectral=self.spectral_norm,
            clip=self.clip,
            pack=self.pack,
        )
