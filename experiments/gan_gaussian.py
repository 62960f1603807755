"""f-GAN on a line: the best Gaussian for a mixture of two, by every divergence.

Nowozin et al. 2016 (arXiv 1606.00709). The data are .33 N(-1, .0625) + .67 N(2, 2), the generator
is mu + sigma z, the critic an MLP; both players move at once.

    python -m experiments.gan_gaussian                   errors of 0.010 or less, 0.5 min

The exact answer is the minimum of D_f, by quadrature. Reported are the relative errors of mu and
sigma over the last tenth of the training, and the critic's bound over the exact divergence.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.config import AtLeast, RunConfig
from experiments.lib.dataset import generated
from experiments.lib.launch import launch
from experiments.lib.method import Method
from experiments.lib.pictures import figure
from jaxgen import divergences, losses
from jaxgen.models import MLP


@dataclass(frozen=True)
class Config(RunConfig):
    """The knobs of the two players."""

    steps: int = 300
    """Steps of the loop."""
    updates: Annotated[int, AtLeast(1)] = 20
    """Updates of both players in one step."""
    batch_size: int = 256
    """Real and fake examples per update."""
    width: Annotated[int, AtLeast(1)] = 64
    """Units of the critic's two hidden layers."""
    learning_rate: Annotated[float, AtLeast(0)] = 0.01
    """Peak of Adam's step size of both players; a cosine takes it to zero."""
    log_every: int = 100
    """Steps between two lines of training metrics."""
    eval_every: int = 0
    """Steps between two evaluations, with pictures; 0: only at the end."""


METRICS = {
    "mu_error": "relative error of mu against the exact minimum of the divergence",
    "sigma_error": "relative error of sigma against the exact minimum of the divergence",
    "bound": "the critic's bound over the exact divergence; at most 1 up to noise, and near it",
}
SMOKE = Config(steps=4, updates=2, batch_size=16, width=8, eval_every=2, log_every=1)

RECORDS = {
    "kl": divergences.kl(),
    "reverse_kl": divergences.reverse_kl(),
    "jensen_shannon": divergences.jensen_shannon(),
    "weighted_jensen_shannon": divergences.weighted_jensen_shannon(0.3),
    "gan": divergences.gan(),
    "jeffreys": divergences.jeffreys(),
    "chi_square_over_q": divergences.chi_square_over_q(),
    "chi_square_over_p": divergences.chi_square_over_p(),
    "squared_hellinger": divergences.squared_hellinger(),
    "alpha_1.5": divergences.alpha_divergence(1.5),
    "alpha_-0.5": divergences.alpha_divergence(-0.5),
}
SHARE, LEFT, RIGHT = 0.33, (-1.0, 0.25), (2.0, 2**0.5)  # (mean, deviation) of the two modes
# In f32 the densities are exact here, and their mass beyond is below 1e-5.
GRID = np.linspace(-7, 11, 1501, dtype=np.float32)


def normal(x, mean, std):
    """Density of a Gaussian."""
    return jnp.exp(-0.5 * ((x - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))


def mixture(x):
    """Density of the data."""
    return SHARE * normal(x, *LEFT) + (1 - SHARE) * normal(x, *RIGHT)


def uniform(key, count: int):
    """One number in each of `count` cells of (0, 1).

    Stratified, so that a mean over the batch is nearly the integral: with twice as many independent
    draws, errors of up to 4 % remained.
    """
    # Short of both ends of the cells: in f32 the last would reach 1, whose quantile is infinite.
    within = jax.random.uniform(key, (count,), minval=1e-3, maxval=1 - 1e-3)
    return (jnp.arange(count) + within) / count


def reals(key, count: int):
    """The mixture, from the quantile functions of its modes."""
    u = uniform(key, count)
    left = u < SHARE
    within = jnp.where(left, u / SHARE, (u - SHARE) / (1 - SHARE))
    z = jax.scipy.special.ndtri(jnp.clip(within, 1e-6, 1 - 1e-6))
    return jnp.where(left, LEFT[0] + LEFT[1] * z, RIGHT[0] + RIGHT[1] * z)


def noise(key, count: int):
    """Standard normal."""
    return jax.scipy.special.ndtri(uniform(key, count))


def best_gaussian(record):
    """(D, mu, sigma) of the Gaussian that is nearest to the mixture, by quadrature."""
    cell = GRID[1] - GRID[0]

    def loss(theta):
        mean, log_std = theta
        law = normal(GRID, mean, jnp.exp(log_std))
        return divergences.f_divergence(record, mixture(GRID) * cell, law * cell)

    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1500))

    def descend(carry, _):
        theta, state = carry
        updates, state = optimizer.update(jax.grad(loss)(theta), state)
        return (optax.apply_updates(theta, updates), state), None

    theta = jnp.array([1.5, 0.3])  # narrow: wide tails cost some divergences without bound
    (theta, _), _ = jax.lax.scan(descend, (theta, optimizer.init(theta)), length=1500)
    return jnp.array([loss(theta), theta[0], jnp.exp(theta[1])])


class Players(NamedTuple):
    """A critic, a generator, and what the last tenth of the training came to.

    Attributes:
      critic: parameters of the network.
      generator: [2], mu and log sigma.
      optimizers: of both.
      sums: [3], of the bound, mu and sigma.
      count: updates in them.
    """

    critic: Any
    generator: Any
    optimizers: Any
    sums: Any
    count: Any


def build(config: Config):
    """The game of every divergence, on examples that are drawn from the step's key."""
    total = config.steps * config.updates
    hidden, zeros = (config.width, config.width), nn.initializers.zeros
    network = MLP(1, hidden, activation=nn.tanh, last_init=zeros)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, total), b1=0.5)

    @functools.cache
    def exact():
        return jax.device_get(jax.jit(lambda: {n: best_gaussian(r) for n, r in RECORDS.items()})())

    def scores(critic, x):
        answers: Any = network.apply(critic, x[:, None])
        return answers[:, 0]

    def init(key, batch):
        critic, generator = network.init(key, jnp.zeros((1, 1))), jnp.zeros(2)
        optimizers = optimizer.init(critic), optimizer.init(generator)
        start = Players(critic, generator, optimizers, jnp.zeros(3), jnp.zeros([], jnp.int32))
        return {"players": dict.fromkeys(RECORDS, start), "done": jnp.zeros([], jnp.int32)}

    def play(record, players, x, z, late):
        def critic_loss(critic):
            v_fake = scores(critic, fakes(players.generator, z))
            terms = losses.f_gan_critic_loss(record, scores(critic, x), v_fake)
            return jnp.mean(terms.real) + jnp.mean(terms.fake)

        def generator_loss(generator):
            v_fake = scores(players.critic, fakes(generator, z))
            return jnp.mean(losses.f_gan_generator_loss(record, v_fake))

        loss, of_critic = jax.value_and_grad(critic_loss)(players.critic)
        of_generator = jax.grad(generator_loss)(players.generator)
        of_critic, critic_state = optimizer.update(of_critic, players.optimizers[0])
        of_generator, generator_state = optimizer.update(of_generator, players.optimizers[1])
        critic = optax.apply_updates(players.critic, of_critic)
        generator = optax.apply_updates(players.generator, of_generator)
        mean, log_std = generator
        reached = jnp.array([-loss, mean, jnp.exp(log_std)])
        sums = players.sums + jnp.where(late, reached, 0)
        optimizers = critic_state, generator_state
        return Players(critic, generator, optimizers, sums, players.count + late)

    def step(state, batch, key):
        def update(carry, key):
            players, done = carry
            real_key, fake_key = jax.random.split(key)
            x, z = reals(real_key, config.batch_size), noise(fake_key, config.batch_size)
            late = (done >= total - max(1, total // 10)).astype(jnp.int32)
            moved = {n: play(RECORDS[n], p, x, z, late) for n, p in players.items()}
            return (moved, done + 1), None

        keys = jax.random.split(key, config.updates)
        (players, done), _ = jax.lax.scan(update, (state["players"], state["done"]), keys)
        metrics: dict = {}
        for name, own in players.items():
            mean, log_std = own.generator
            metrics |= {f"{name}/mu": mean, f"{name}/sigma": jnp.exp(log_std)}
        return {"players": players, "done": done}, metrics

    def judge(state, key):
        report = {}
        for name, players in state["players"].items():
            bound, mean, std = (players.sums / jnp.maximum(players.count, 1)).tolist()
            report[f"{name}/mu_error"] = abs(mean / exact()[name][1] - 1)
            report[f"{name}/sigma_error"] = abs(std / exact()[name][2] - 1)
            report[f"{name}/bound"] = bound / exact()[name][0]
        return report

    drawn = pictures(exact, scores)
    method = Method(init, step, judge=judge, pictures=drawn, meanings=METRICS)
    return generated(config.batch_size), method


def fakes(generator, z):
    """mu + sigma z."""
    return generator[0] + jnp.exp(generator[1]) * z


def pictures(exact: Callable, scores: Callable):
    """The fits, and each critic T beside the best one for its generator."""

    def draw(state, batch, key):
        players = state["players"]
        return {"fits": figure(lambda sheet: _draw(sheet, players, exact(), scores), 18, 9)}

    return draw


def _draw(sheet, players, exact, scores) -> None:
    axes = sheet.subplots(3, 4).ravel()
    x = GRID[(GRID > -4) & (GRID < 7)]
    p = np.asarray(mixture(x))
    for axis in axes[len(players) :]:
        axis.set_axis_off()
    for axis, (name, own) in zip(axes, players.items(), strict=False):
        law = np.asarray(normal(x, own.generator[0], jnp.exp(own.generator[1])))
        best = np.asarray(jax.vmap(jax.grad(RECORDS[name].f))(jnp.asarray(p / law)))
        axis.plot(x, p, "k", linewidth=0.8, label="density of the data, p")
        axis.plot(x, normal(x, *exact[name][1:]), "C2--", label="exact best Gaussian")
        axis.plot(x, law, "C1", linewidth=0.8, label="density of the generator, q")
        right = axis.twinx()
        found = RECORDS[name].activation(scores(own.critic, x))
        right.plot(x, found, "C0", linewidth=0.8, label="critic T (right axis)")
        right.plot(x, best, "C0:", label="best critic for q, f'(p / q) (right axis)")
        seen = best[law > 1e-3 * law.max()]  # in q's tails f' may be millions
        right.set_ylim(seen.min() - 0.2, seen.max() + 0.2)
        right.tick_params(colors="C0", labelsize=7)
        right.set_ylabel("T", color="C0")
        axis.tick_params(labelsize=7)
        axis.set_title(name, fontsize=9)
        axis.set(xlabel="x", ylabel="density")
        legend = [*axis.get_lines(), *right.get_lines()]
    sheet.suptitle("f-GAN on one line: the Gaussian that each divergence finds")
    sheet.legend(handles=legend, loc="outside lower center", ncols=len(legend))


if __name__ == "__main__":
    launch(build, Config)
