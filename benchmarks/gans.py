"""GANs of images: a turn of training against PyTorch, what penalties cost, many seeds at once.

    python -m benchmarks.gans                    # everything, 20 minutes; `step` takes 8
    python -m benchmarks.gans critic seeds       # some cases

What is measured: turns of `experiments.methods.players.play`, compiled with a donated state as
the loop compiles them, on f32 batches of 64. A turn is one update of the critic and one of the
generator, each by Adam, and one of the running average of the generator. The networks are DCGAN's,
batch normalization in the generator and none in the critic.

step      One turn at 32x32x3 and 64x64x3, width 64, of WGAN-GP (`gp`), WGAN-div with p = 6 and
          k = 2 (`div`) and GAN-QP with the L2 distance and no penalty (`qp`), against the same in
          PyTorch (`benchmarks.gans_peer`; a test holds that both do the same): as written, with
          channels_last tensors, and those compiled by torch.compile, which has no double backward
          and so is for `qp` alone. All run in turn in one process, with as many threads for
          PyTorch as JAX takes. `ratio` is seconds over ours, so > 1 is slower than ours.
          `utilization` is the turn's FLOP/s over those of a 2048^3 matrix product of JAX, timed in
          the same rounds. Its FLOPs are those of the convolutions and dense layers that the turn
          cannot do without, see `flops`.
critic    One update of the critic alone at 32x32x3, width 64, with each penalty: `ratio` is seconds
          over those of the Wasserstein critic without any, `over_gp` over those with WGAN-GP's.
          GAN-QP is to be cheaper than WGAN-GP.
games     A turn of the games in the table of experiments/gan.py, at its size (28x28x1, width 16):
          `ratio` is seconds over those of the non-saturating one.
seeds     A turn of 8 models, as `--seeds 8` trains them: by vmap (on an accelerator) and by
          lax.map (on a CPU), against 8 turns of one model, as 8 runs would do one after the other;
          28x28x1, width 16. `ratio` is seconds over those of the separate turns, `temporary_mib`
          what XLA plans beside state and images.

Results: RESULTS.md.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lib
from experiments.methods.games import LOSSES, GanConfig
from experiments.methods.players import Game, Players, Turn, begin, play

BATCH, WIDTH, SEEDS = 64, 64, 8
GAMES: dict[str, Callable[..., GanConfig]] = {
    "gp": partial(GanConfig, loss="wasserstein", penalty="gp"),
    "div": partial(GanConfig, loss="wasserstein", penalty="div"),
    "qp": partial(GanConfig, loss="qp_l2", penalty="none"),
}
CRITICS: dict[str, dict[str, Any]] = {
    "none": {"penalty": "none"},
    **{name: {"penalty": name} for name in ("gp", "lp", "dragan", "div", "r1", "r1_r2")},
    "spectral": {"penalty": "none", "spectral_norm": True},
    "clip": {"penalty": "none", "clip": 0.01},
    "qp_l1": {"loss": "qp_l1", "penalty": "none"},
    "qp_l2": {"loss": "qp_l2", "penalty": "none"},
}
TABLE: dict[str, dict[str, Any]] = {
    **{name: {"loss": name, "penalty": "none"} for name in LOSSES},
    "hinge, spectral norm": {"loss": "hinge", "penalty": "none", "spectral_norm": True},
    "wasserstein, clip": {"loss": "wasserstein", "penalty": "none", "clip": 0.1},
    "wasserstein, gp": {"loss": "wasserstein", "penalty": "gp"},
    "wasserstein, div": {"loss": "wasserstein", "penalty": "div"},
    "non_saturating, dragan": {"loss": "non_saturating", "penalty": "dragan"},
    "relativistic, r1_r2": {"loss": "relativistic", "penalty": "r1_r2"},
}
ROUNDS = {32: 9, 64: 4}  # by the side of the images


def images(shape: tuple[int, int, int]) -> jax.Array:
    """Those of one turn, [2, B, H, W, C]."""
    return jnp.tanh(jax.random.normal(jax.random.key(0), (2, BATCH, *shape)))


def initial(game: Game, shape) -> Players:
    """Players before the first turn."""
    return jax.jit(partial(begin, game))(jax.random.key(1), images(shape)[0])


def trainer(game: Game):
    """(players, real) -> (players, metrics), one turn; not compiled."""

    def train(players, real):
        # As many keys as turns: all randomness is drawn anew.
        return play(
            game, players, Turn(real), jax.random.fold_in(jax.random.key(2), players.d_steps)
        )

    return train


def critic_trainer(game: Game):
    """The same, but the generator stays as it is, and so the compiler drops its update."""
    train = trainer(game)

    def critic_alone(players, real):
        new, metrics = train(players, real)
        new = new._replace(
            generator=players.generator,
            ema=players.ema,
            generator_opt_state=players.generator_opt_state,
            g_steps=players.g_steps,
        )
        return new, metrics["critic_loss"]

    return critic_alone


def torch_turns(name: str, game: Game, shape) -> dict:
    """Every way of PyTorch that works here."""
    players = jax.device_get(initial(game, shape))

    def make(channels_last, compiled):
        from benchmarks import gans_peer  # noqa: PLC0415  PyTorch is optional

        params = players.critic["params"], players.generator["params"]
        return gans_peer.turn(name, *params, np.array(images(shape)), channels_last, compiled)

    return lib.torch_ways("step", make, compiles=not game.penalty, game=name, side=shape[0])


def layers(shape) -> tuple[list[int], list[int]]:
    """Multiplications and additions of a forward pass of one image: critic's, generator's layers.

    A transposed convolution is the convolution the other way.
    """
    side, _, channels = shape
    critic, inputs, outputs = [], channels, WIDTH
    while side > 7:
        side //= 2
        critic.append(2 * side**2 * 16 * inputs * outputs)
        inputs, outputs = outputs, 2 * outputs
    generator = [2 * GanConfig().noise * side**2 * inputs, *critic[::-1]]
    return [*critic, 2 * side**2 * inputs], generator


def flops(shape, penalty: bool, real_for_generator: bool) -> float:
    """Of one turn, those that it cannot do without.

    A critic's update: generator forward; critic forward, gradient of the weights, gradient of the
    inputs but for the first layer's, at real and fake images. A penalty at as many points: forward,
    gradient of the inputs, and of that the gradients of the weights and of what came from above
    (the second derivative of leaky ReLU is 0). A generator's update: generator forward and both
    gradients, without the noise's; critic forward and gradient of the inputs; GAN-QP scores real
    images, too.
    """
    critic, generator = layers(shape)
    c, g = sum(critic), sum(generator)
    update_critic = g + 2 * (3 * c - critic[0]) + (4 * c if penalty else 0)
    update_generator = 3 * g - generator[0] + 2 * c + (c if real_for_generator else 0)
    return float(BATCH * (update_critic + update_generator))


def step_case() -> list[dict]:
    """One turn, ours and PyTorch's."""
    rows = []
    for side, rounds in ROUNDS.items():
        shape = (side, side, 3)
        for name, config in GAMES.items():
            game = config(width=WIDTH).game(shape)
            ours = {"ours": lib.training(trainer(game), initial(game, shape), images(shape))}
            runs = {**ours, **torch_turns(name, game, shape)}
            work = flops(shape, bool(game.penalty), name == "qp")
            rows += lib.steps("step", runs, rounds, work, game=name, side=side)
    return rows


def critic_case() -> list[dict]:
    """One update of the critic, by penalty."""
    shape, runs = (32, 32, 3), {}
    for name, knobs in CRITICS.items():
        game = GanConfig(**{"loss": "wasserstein", "width": WIDTH, **knobs}).game(shape)
        runs[name] = lib.training(critic_trainer(game), initial(game, shape), images(shape))
    times = lib.in_turn(runs, rounds=9)
    return [
        lib.row(
            "critic",
            name=name,
            seconds=statistics.median(t),
            **lib.ratio(t, times["none"]),
            over_gp=lib.ratio(t, times["gp"])["ratio"],
        )
        for name, t in times.items()
    ]


def games_case() -> list[dict]:
    """One turn of the experiment, by game."""
    shape, runs = (28, 28, 1), {}
    for name, knobs in TABLE.items():
        game = GanConfig(**{"width": 16, **knobs}).game(shape)
        runs[name] = lib.training(trainer(game), initial(game, shape), images(shape))
    times = lib.in_turn(runs, rounds=25)
    return [
        lib.row(
            "games",
            name=name,
            seconds=statistics.median(t),
            **lib.ratio(t, times["non_saturating"]),
        )
        for name, t in times.items()
    ]


def seeds_case() -> list[dict]:
    """Eight models at once, and one after the other."""
    configs: dict[str, Callable[..., GanConfig]] = {"relativistic": GanConfig, "gp": GAMES["gp"]}
    shape, rows = (28, 28, 1), []
    for name, config in configs.items():
        game, real = config(width=16).game(shape), images(shape)
        init = partial(begin, game, real=real[0])
        rows += lib.seeds("seeds", trainer(game), init, real, SEEDS, rounds=15, game=name)
    return rows


CASES = {
    "step": step_case,
    "critic": critic_case,
    "games": games_case,
    "seeds": seeds_case,
}


if __name__ == "__main__":
    lib.run(CASES, sys.argv[1:])
