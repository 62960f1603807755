"""A game of two players as a `Method`, and samples of it in large numbers."""

from collections.abc import Callable

import jax

from experiments.lib.method import Method
from experiments.methods.players import Game, begin, generate, play
from experiments.methods.samples import in_blocks


def adversarial(game: Game, turn: Callable, **rest) -> Method:
    """The game as a method.

    Args:
      game: the rules.
      turn: batch -> Turn.
      **rest: the other fields of the method.
    """

    def init(key, batch):
        first = jax.tree.map(lambda x: x[0], turn(batch))
        return begin(game, key, first.real, first.context)

    def step(players, batch, key):
        return play(game, players, turn(batch), key)

    return Method(init, step, **rest)


def deal(x, updates: int):
    """Splits a batch among the updates of one turn: [updates * B, ...] -> [updates, B, ...].

    Neighbouring examples go to different updates, so that each update's batch covers all devices.
    """
    return x.reshape(-1, updates, *x.shape[1:]).swapaxes(0, 1)


def sampler(game: Game, context: Callable | None = None) -> Callable:
    """A function that generates many examples, block by block.

    Args:
      game: the rules.
      context: numbers [B] of the examples, 0, 1, ... -> contexts [B, K]; None: the game has none.

    Returns:
      (variables, key, count, block=1000) -> numpy array [count, ...]. All blocks have one size, at
      most `block`, so that one program is compiled. Example i has context i for any size of block.
    """

    @jax.jit
    def of_noise(variables, z, numbers):
        return generate(game, variables, z, context(numbers) if context else None)

    def sample(variables, key, count: int, block: int = 1000):
        def draw(key, numbers):
            return of_noise(variables, game.noise(key, len(numbers)), numbers)

        return in_blocks(draw, key, count, block)

    return sample
