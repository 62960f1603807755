"""Dirac-GAN: two points and a linear critic show which adversarial games converge.

Mescheder et al. 2018 (arXiv 1801.04406); GAN-QP: Su 2018 (arXiv 1811.07296). The data are a point
at 0, the generator a point theta, the critic T(x) = phi x; phi' and theta' are minus the gradients
of their losses, integrated over the time 150 from 32 starting points.

    python -m experiments.dirac_gan                      1.000 of WGAN-GP, 0.5 min

`low` and `high` are the least and greatest |theta| in the last fifth of the time: equal if the game
has settled, 0 if it has converged to the data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib.config import Above, AtLeast, RunConfig
from experiments.lib.dataset import generated
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from jaxgen import losses, regularizers
from jaxgen.optimizers import integrate


@dataclass(frozen=True)
class Config(RunConfig):
    """The knobs: how long, how exactly, and the weights of the penalties."""

    steps: int = 1500
    """Steps of time."""
    batch_size: int = 32
    """Starting points."""
    step: Annotated[float, Above(0)] = 0.1
    """Time of one step."""
    substeps: Annotated[int, AtLeast(1)] = 4
    """Runge-Kutta steps in it."""
    gp_weight: Annotated[float, AtLeast(0)] = 10.0
    """Weight of WGAN-GP's penalty."""
    div_weight: Annotated[float, AtLeast(0)] = 2.0
    """k of WGAN-div."""
    div_power: Annotated[float, AtLeast(2)] = 6.0
    """p of WGAN-div."""
    r1_weight: Annotated[float, AtLeast(0)] = 1.0
    """gamma of R1: its half is the penalty's weight."""
    slope: Annotated[float, Above(0)] = 1.0
    """lambda of GAN-QP."""
    weight_decay: Annotated[float, AtLeast(0)] = 0.1
    """Weight of |phi|^2 in the game gan_qp_decay."""
    log_every: int = 250
    """Steps between two lines of training metrics."""
    eval_every: int = 0
    """Steps between two evaluations, with pictures; 0: only at the end."""


METRICS = {
    "low": "least |theta| in the last fifth of the time; 0: converged to the data",
    "high": "greatest |theta| in the last fifth of the time; equal to low: settled",
    "over_predicted": "|theta| that GAN-QP keeps over the one that its conserved momentum predicts",
}
SMOKE = Config(steps=4, batch_size=8, eval_every=2, log_every=1)


class Game(NamedTuple):
    """Two players.

    Attributes:
      critic: (v_real, v_fake, distance), each [B] -> its loss, one or several [B].
      generator: (v_real, v_fake) -> its loss [B].
      penalty: (phi, points) -> [B], added to the critic's loss.
    """

    critic: Callable
    generator: Callable
    penalty: Callable = lambda phi, points: 0.0


def games(config: Config) -> dict[str, Game]:
    """Everything that is compared."""

    def terms(loss):
        return lambda v_real, v_fake, distance: loss(v_real, v_fake)

    def of_fakes(loss):
        return lambda v_real, v_fake: loss(v_fake)

    def gp(phi, points):
        penalty = regularizers.one_centered_gradient_penalty(critic(phi), points)
        return config.gp_weight * penalty

    def div(phi, points):
        penalty = regularizers.gradient_power_penalty(critic(phi), points, config.div_power)
        return config.div_weight * penalty

    def r1(phi, points):
        return (
            config.r1_weight
            / 2
            * regularizers.zero_centered_gradient_penalty(critic(phi), jnp.zeros_like(points))
        )

    def qp(v_real, v_fake, distance):
        return losses.qp_critic_loss(v_real, v_fake, distance, config.slope)

    def decay(phi, points):
        return config.weight_decay * jnp.sum(phi**2, axis=-1)

    logistic = terms(losses.logistic_critic_loss)
    non_saturating = of_fakes(losses.non_saturating_generator_loss)
    wasserstein = terms(losses.wasserstein_critic_loss)
    lower = of_fakes(losses.wasserstein_generator_loss)
    relativistic = (terms(losses.relativistic_critic_loss), losses.relativistic_generator_loss)
    return {
        "saturating": Game(logistic, of_fakes(losses.saturating_generator_loss)),
        "non_saturating": Game(logistic, non_saturating),
        "least_squares": Game(
            lambda r, f, _: losses.least_squares_critic_loss(r, f, 1.0, -1.0),
            lambda r, f: losses.least_squares_generator_loss(f, 0.0),
        ),
        "hinge": Game(terms(losses.hinge_critic_loss), lower),
        "relativistic": Game(*relativistic),
        "wgan": Game(wasserstein, lower),
        "wgan_gp": Game(wasserstein, lower, gp),
        "wgan_div": Game(wasserstein, lower, div),
        "gan_qp": Game(qp, losses.qp_generator_loss),
        "gan_qp_decay": Game(qp, losses.qp_generator_loss, decay),
        "wgan_r1": Game(wasserstein, lower, r1),
        "non_saturating_r1": Game(logistic, non_saturating, r1),
        "relativistic_r1": Game(*relativistic, r1),
    }


def critic(phi):
    """T(x) = phi x, for phi and x [B, 2]."""
    return lambda x: jnp.vecdot(phi, x)


def field(game: Game):
    """(phi, theta) -> their derivatives in time, for independent games [B, 2]."""

    def scores(phi, theta):
        return critic(phi)(jnp.zeros_like(theta)), critic(phi)(theta)

    def critic_total(phi, theta):
        terms = game.critic(*scores(phi, theta), radius(theta))
        return sum(map(jnp.sum, jax.tree.leaves(terms))) + jnp.sum(game.penalty(phi, theta))

    def generator_total(theta, phi):
        return jnp.sum(game.generator(*scores(phi, theta)))

    def derivatives(players):
        phi, theta = players
        return -jax.grad(critic_total)(phi, theta), -jax.grad(generator_total)(theta, phi)

    return derivatives


def radius(theta):
    """|theta|, whose gradient at 0 is 0."""
    return jnp.sqrt(2.0) * losses.root_mean_square_distance(theta, jnp.zeros_like(theta))


def starting_points(key, count: int):
    """(phi, theta), each [count, 2]."""
    first = jnp.array([[[0.1, 0.2]], [[0.2, 0.1]]])
    others = 0.2 * jax.random.normal(key, (2, count - 1, 2))
    phi, theta = jnp.concatenate([first, others], axis=1)
    return phi, theta


class Progress(NamedTuple):
    """One game from all starting points, and the range of |theta| lately."""

    players: Any
    low: Any
    high: Any


def build(config: Config):
    """All games, from random starting points."""
    fields = {name: field(game) for name, game in games(config).items()}
    late = config.steps - max(1, config.steps // 5)

    def init(key, batch):
        players = starting_points(key, config.batch_size)
        nothing = jnp.zeros(config.batch_size)
        progress = {name: Progress(players, nothing, nothing) for name in fields}
        return {"games": progress, "start": players, "done": jnp.zeros([], jnp.int32)}

    def advance(name, progress, done):
        players = integrate(fields[name], progress.players, config.step, config.substeps)
        now = radius(players[1])
        early = done < late
        low = jnp.where(early, now, jnp.minimum(progress.low, now))
        high = jnp.where(early, now, jnp.maximum(progress.high, now))
        return Progress(players, low, high)

    def step(state, batch, key):
        moved = {name: advance(name, p, state["done"]) for name, p in state["games"].items()}
        metrics = {f"{name}/radius": jnp.mean(radius(p.players[1])) for name, p in moved.items()}
        return state | {"games": moved, "done": state["done"] + 1}, metrics

    @jax.jit
    def judge(state, key):
        report = {}
        for name, progress in state["games"].items():
            report[f"{name}/low"] = jnp.mean(progress.low)
            report[f"{name}/high"] = jnp.mean(progress.high)
        predicted = jnp.sqrt(jnp.abs(momentum(state["start"])))
        measured = radius(state["games"]["gan_qp"].players[1])
        report["gan_qp/over_predicted"] = jnp.mean(measured / predicted)
        return report

    drawn = pictures(config, fields)
    method = Method(init, step, judge=judge, pictures=drawn, meanings=METRICS)
    return generated(config.batch_size), method


def momentum(players):
    """theta x phi. GAN-QP keeps it, as all its forces on phi are along theta."""
    phi, theta = players
    return theta[:, 0] * phi[:, 1] - theta[:, 1] * phi[:, 0]


def pictures(config: Config, fields):
    """Theta in the plane and |theta| over time, from the first starting point."""

    @jax.jit
    def paths(players):
        def run(derivatives):
            def body(players, _):
                players = integrate(derivatives, players, config.step, config.substeps)
                return players, players[1][0]

            return jax.lax.scan(body, players, length=config.steps)[1]

        return {name: run(derivatives) for name, derivatives in fields.items()}

    def draw(state, batch, key):
        first = jax.tree.map(lambda x: x[:1], state["start"])
        drawn = jax.device_get(paths(first))
        shown = int(state["done"])
        return {"trajectories": figure(lambda sheet: _draw(sheet, drawn, shown, config), 18, 9)}

    return draw


def _draw(sheet, paths, shown: int, config: Config) -> None:
    columns = -(-len(paths) // 2)
    axes = sheet.subplots(4, columns, height_ratios=[2, 1, 2, 1])
    for axis in axes.ravel():
        axis.set_axis_off()
    for i, (name, path) in enumerate(paths.items()):
        row, column = divmod(i, columns)
        plane, line = axes[2 * row, column], axes[2 * row + 1, column]
        points = path[:shown]
        plane.set_axis_on()
        plane.plot(*points.T, linewidth=0.6, label="path of theta, the point that is generated")
        plane.plot(0, 0, "k+", markersize=5, label="the data, at 0")
        plane.plot(*points[-1:].T, "C1o", markersize=5, label="theta now")
        plane.set(aspect="equal", title=name, xlabel="theta[0]", ylabel="theta[1]")
        plane.tick_params(labelsize=7)
        line.set_axis_on()
        line.plot(config.step * np.arange(1, len(points) + 1), np.linalg.norm(points, axis=1))
        line.set(ylim=(0, None), xlabel="time", ylabel="|theta|")
        line.tick_params(labelsize=7)
    sheet.suptitle("The generator's point theta in the plane; below, its distance from the data")
    sheet.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


if __name__ == "__main__":
    launch(build, Config)
