"""GANs on a ring of 8 or a grid of 25 Gaussians: which losses find all modes.

Non-saturating (arXiv 1406.2661), WGAN-GP (1704.00028), WGAN-div (1712.01026), GAN-QP
(1811.07296), relativistic pairing with R1 + R2 (2501.05441); same data, networks and step sizes.

    python -m experiments.gan_toy                        quality of 0.96 or more, 1 min
    python -m experiments.gan_toy --seeds 10             with deviations, 8 min

`modes` are those with a sample within three deviations, among 10,000; `quality` is the share of
samples within three deviations of a mode (0.989 for a perfect sampler). The grid: RESULTS.md.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import Above, AtLeast, RunConfig
from experiments.lib.dataset import generated
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from experiments.methods.comparison import side_by_side
from experiments.methods.games import LOSSES, penalties, qp
from experiments.methods.players import (
    Game,
    Loss,
    Players,
    Turn,
    begin,
    generate,
    play,
    scores,
)
from jaxgen import losses, metrics
from jaxgen.models import MLP


@dataclass(frozen=True)
class Config(RunConfig):
    """The knobs of the players and of the penalties."""

    data: Literal["ring", "grid"] = "ring"
    """Ring of 8 modes or grid of 25."""
    steps: int = 250
    """Steps of the loop."""
    updates: Annotated[int, AtLeast(1)] = 20
    """Updates of the generator in one step."""
    critic_updates: Annotated[int, AtLeast(1)] = 1
    """Updates of the critic, each on its own examples, for one of the generator."""
    batch_size: int = 256
    """Real and fake examples per update."""
    width: Annotated[int, AtLeast(1)] = 64
    """Units of each hidden layer."""
    layers: Annotated[int, AtLeast(0)] = 3
    """Hidden layers of both networks."""
    noise: Annotated[int, AtLeast(1)] = 2
    """Dimensions of the generator's input."""
    learning_rate: Annotated[float, AtLeast(0)] = 0.005
    """Peak of Adam's step size (betas 0 and .99) of both; a cosine takes it to zero."""
    ema_decay: Annotated[float, AtLeast(0)] = 0.999
    """Of the running average of the generator's parameters, which is judged and drawn from."""
    gp_weight: Annotated[float, AtLeast(0)] = 0.1
    """Weight of WGAN-GP's penalty."""
    div_weight: Annotated[float, AtLeast(0)] = 0.1
    """k of WGAN-div."""
    div_power: Annotated[float, AtLeast(2)] = 6.0
    """p of WGAN-div."""
    slope: Annotated[float, Above(0)] = 10.0
    """lambda of GAN-QP."""
    gamma: Annotated[float, AtLeast(0)] = 0.02
    """gamma of R1 + R2."""
    log_every: int = 50
    """Steps between two lines of training metrics."""
    eval_every: int = 0
    """Steps between two evaluations, with pictures; 0: only at the end."""


METRICS = {
    "modes": "modes that samples reach; all of them is best",
    "quality": "share of the samples near a mode; higher is better",
    "kl": "KL divergence of the samples' modes from the uniform law, in nats; lower is better",
}
SMOKE = Config(
    steps=4,
    updates=2,
    critic_updates=2,
    batch_size=16,
    width=8,
    layers=1,
    eval_every=2,
    log_every=1,
)
SAMPLES = 10_000
DEVIATION = 0.05


def games(config: Config) -> dict[str, Game]:
    """Everything that is compared."""
    hidden = (config.width,) * config.layers
    generator = MLP(2, hidden, activation=nn.relu)
    total = config.steps * config.updates

    def adam(updates):
        rate = optax.cosine_decay_schedule(config.learning_rate, updates)
        return optax.adam(rate, b1=0.0, b2=0.99)

    def game(loss: Loss, penalty: str = "none", weight: float = 0.0) -> Game:
        return Game(
            loss=loss,
            critic=MLP(1, hidden, activation=lambda x: nn.leaky_relu(x, 0.2)),
            generator=generator,
            sampler=generator,
            critic_optimizer=adam(total * config.critic_updates),
            generator_optimizer=adam(total),
            noise=lambda key, count: jax.random.normal(key, (count, config.noise)),
            penalty=penalties(power=config.div_power).get(penalty),
            weight=weight,
            ema_decay=config.ema_decay,
        )

    wasserstein = LOSSES["wasserstein"]
    return {
        "non_saturating": game(LOSSES["non_saturating"]),
        "wgan_gp": game(wasserstein, "gp", config.gp_weight),
        "wgan_div": game(wasserstein, "div", config.div_weight),
        "gan_qp": game(qp(losses.root_mean_square_distance, config.slope)),
        "relativistic_r1_r2": game(LOSSES["relativistic"], "r1_r2", config.gamma),
    }


class Mixture(NamedTuple):
    """Equal Gaussians, scaled so that the mean square of a coordinate of their centres is 1."""

    centers: Any
    deviation: float


def mixture(name: str) -> Mixture:
    """The set of that name."""
    if name == "ring":
        angles = 2 * np.pi * np.arange(8) / 8
        centers = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    else:
        places = np.arange(-4, 5, 2)
        centers = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    scale = np.sqrt(np.mean(centers**2))
    return Mixture((centers / scale).astype(np.float32), DEVIATION / scale)


def reals(law: Mixture, key, count: int):
    """[count, 2]."""
    mode_key, noise_key = jax.random.split(key)
    modes = jax.random.randint(mode_key, (count,), 0, len(law.centers))
    offsets = jax.random.normal(noise_key, (count, 2))
    return jnp.asarray(law.centers)[modes] + law.deviation * offsets


def played(game: Game, law: Mixture, config: Config) -> Method:
    """One game as a method of the loop."""

    def draw(key, updates: int):
        points = reals(law, key, updates * config.batch_size)
        return points.reshape(updates, config.batch_size, 2)

    def init(key, batch):
        return begin(game, key, jnp.zeros((1, 2)))

    def step(players, batch, key):
        def one(players, key):
            real_key, key = jax.random.split(key)
            return play(game, players, Turn(draw(real_key, config.critic_updates + 1)), key)

        players, found = jax.lax.scan(one, players, jax.random.split(key, config.updates))
        return players, {n: jnp.mean(found[n]) for n in ("critic_loss", "generator_loss")}

    def sample(players, key, count):
        return generate(game, players.ema, game.noise(key, count))

    @jax.jit
    def judge(players, key):
        found = metrics.mode_counts(law.centers, sample(players, key, SAMPLES), law.deviation)
        return {
            "modes": metrics.captured_modes(found.counts),
            "quality": found.high_quality,
            "kl": metrics.kl_to_uniform(found.counts),
        }

    return Method(init, step, judge=judge, sample=sample, meanings=METRICS)


def build(config: Config):
    """All games, on examples that are drawn from the step's key."""
    law = mixture(config.data)
    rules = games(config)
    method = side_by_side(
        {name: played(game, law, config) for name, game in rules.items()},
        pictures(law, rules),
    )
    return generated(config.batch_size), method


def pictures(law: Mixture, rules: dict[str, Game]):
    """Samples on the field of each critic, with the circles that quality means."""

    def draw(state, batch, key):
        def panels(sheet):
            for axis, (name, players) in zip(
                np.ravel(sheet.subplots(1, len(state))), state.items(), strict=True
            ):
                _draw(axis, law, rules[name], players, key)
                axis.set_title(name)
            sheet.suptitle("Samples on the critic's scores, from dark (fake) to bright (real)")
            handles, labels = sheet.axes[0].get_legend_handles_labels()
            sheet.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=5)

        return {"samples": figure(panels, width=5 * len(state), height=5.8)}

    return draw


def _draw(axis, law: Mixture, game: Game, players: Players, key) -> None:
    side = np.linspace(-2, 2, 100, dtype=np.float32)
    x, y = np.meshgrid(side, side)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    height = np.asarray(scores(game, players, points)).reshape(x.shape)
    axis.contourf(x, y, height, 30, cmap="Greys_r")
    for i, center in enumerate(law.centers):
        angles = np.linspace(0, 2 * np.pi, 40)
        circle = np.stack([np.cos(angles), np.sin(angles)])
        label = "three deviations around a mode" if i == 0 else None
        axis.plot(*(center[:, None] + 3 * law.deviation * circle), "C0", linewidth=0.6, label=label)
    samples = np.asarray(generate(game, players.ema, game.noise(key, 1000)))
    axis.plot(*samples.T, "C1.", markersize=1.5, label="1,000 samples of the running average")
    axis.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=[], yticks=[])


if __name__ == "__main__":
    launch(build, Config)
