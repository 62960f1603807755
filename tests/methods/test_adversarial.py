"""Samples in blocks, and how a batch is dealt among the updates of a turn."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.methods.adversarial import deal, sampler
from experiments.methods.games import LOSSES
from experiments.methods.players import Game


class Noise(nn.Module):
    """The noise itself, or the context where there is one."""

    @nn.compact
    def __call__(self, z, context=None):
        return z if context is None else context


GAME = Game(
    loss=LOSSES["wasserstein"],
    critic=Noise(),
    generator=Noise(),
    sampler=Noise(),
    critic_optimizer=optax.sgd(1.0),
    generator_optimizer=optax.sgd(1.0),
    noise=lambda key, count: jax.random.normal(key, (count, 2)),
)


def test_samples_come_in_blocks():
    made = sampler(GAME)({}, jax.random.key(0), 25, block=10)
    assert made.shape == (25, 2)
    assert len(np.unique(made[:, 0])) == 25


def test_sample_i_has_context_i_across_blocks():
    draw = sampler(GAME, lambda numbers: jnp.eye(10)[numbers % 10])
    for block in (7, 25, 1000):
        made = draw({}, jax.random.key(0), 25, block=block)
        np.testing.assert_array_equal(made.argmax(axis=1), np.arange(25) % 10)


def test_neighbours_are_dealt_to_different_updates():
    dealt = deal(np.arange(6), 3)
    np.testing.assert_array_equal(dealt, [[0, 3], [1, 4], [2, 5]])
