"""A game of two players as a `Method`, and samples of it in large numbers."""

from collections.abc import Callable

import jax
import numpy as np

from experiments.lib.method import Method
from experiments.methods.players import Game, begin, generate, play


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
      context: N -> contexts [N, K] of the examples 0 ... N - 1; None: the game has none.

    Returns:
      (variables, key, count, block=1000) -> numpy array [count, ...]. All blocks have one size, at
      most `block`, so that one program is compiled. Example i has context i for any size of block.
    """

    @jax.jit
    def of_noise(variables, z, contexts):
        return generate(game, variables, z, contexts)

    def sample(variables, key, count: int, block: int = 1000):
        block = min(block, count)
        keys = jax.random.split(key, -(-count // block))
        contexts = np.asarray(context(block * len(keys))) if context else None
        parts = []
        for i, block_key in enumerate(keys):
            own = None if contexts is None else contexts[i * block : (i + 1) * block]
            parts.append(np.asarray(of_noise(variables, game.noise(block_key, block), own)))
        return np.concatenate(parts)[:count]

    return sample
