"""The PyTorch twin of benchmarks.gans plays the same game as ours."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import gans
from experiments.methods.players import Turn, begin, play
from jaxgen import regularizers

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs torch")

from benchmarks import gans_peer  # noqa: E402  it imports torch

SHAPE, COUNT, TURNS = (16, 8, 3), 6, 2
# With a large epsilon Adam does not blow up the rounding errors of gradients that are 0.
ADAM = {"b1": 0.5, "b2": 0.99, "eps": 1e-2}
RATE = 1e-2


def recorded(game, noises, alphas):
    """The game, which tells what noise and what points it drew, whatever keys it was given."""

    def noise(key, count):
        z = game.noise(key, count)
        jax.debug.callback(lambda z: noises.append(np.array(z)), z, ordered=True)
        return z

    def penalty(critic, real, fake, key):
        ones = jnp.ones((len(real), 1, 1, 1))
        alpha = regularizers.interpolate(key, ones, jnp.zeros_like(ones))
        jax.debug.callback(lambda a: alphas.append(np.array(a)), alpha, ordered=True)
        return game.penalty(critic, real, fake, key)

    return game._replace(noise=noise, penalty=penalty if game.penalty else None)


def close(actual, expected, scale=None):
    expected = np.asarray(expected)
    scale = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * scale)


def same_change(module, ours, start, convert):
    """Parameters differ from those at the start in the same way."""
    start, ours = (dict(convert(x, SHAPE).named_parameters()) for x in (start, ours))
    assert len(ours) == len(list(module.parameters()))
    for name, theirs in module.named_parameters():
        expected = (ours[name] - start[name]).detach().numpy()
        close((theirs - start[name]).detach().numpy(), expected, scale=RATE)
        moved = np.abs(expected).max() > 1e-3 * RATE
        # Only a bias before batch normalization is without effect.
        assert moved or name.endswith("bias"), name


def make_game(name):
    game = gans.GAMES[name](width=4, noise=5).game(SHAPE)
    optimizer = optax.adam(RATE, **ADAM)
    return game._replace(critic_optimizer=optimizer, generator_optimizer=optimizer)


@pytest.fixture(scope="module")
def start():
    """Players, the same for all games, and the real images of a turn."""
    real = 0.5 * jax.random.normal(jax.random.key(0), (2, COUNT, *SHAPE))
    players = jax.jit(partial(begin, make_game("gp")))(jax.random.key(1), real[0])
    # Steeper than one: else the norm's sixth power is too small to matter.
    players.critic["params"]["score"]["kernel"] *= 3
    return players, real


@pytest.mark.parametrize("name", gans.GAMES)
def test_same_losses_and_updates(start, name):
    game, (players, real) = make_game(name), start
    critic, generator = jax.device_get((players.critic["params"], players.generator["params"]))
    twin = gans_peer.Players(
        gans_peer.GAMES[name],
        critic,
        generator,
        SHAPE,
        partial(torch.optim.Adam, lr=RATE, betas=(0.5, 0.99), eps=ADAM["eps"], fused=True),
    )
    noises, alphas = [], []
    turn = jax.jit(partial(play, recorded(game, noises, alphas)))
    for i in range(TURNS):
        players, metrics = turn(players, Turn(real), jax.random.key(i))
        jax.effects_barrier()
        z = torch.from_numpy(np.stack(noises[-2:]))
        alpha = torch.from_numpy(alphas[-1]) if game.penalty else None
        theirs = twin.play([gans_peer.to_torch(x) for x in real], z, alpha)
        for key, value in theirs.items():
            close(value, metrics[key], scale=1)
        assert (metrics["penalty"] > 0.1) == bool(game.penalty)
    assert len(noises) == 2 * TURNS
    assert len(alphas) == (TURNS if game.penalty else 0)
    same_change(twin.critic, players.critic["params"], critic, gans_peer.Critic)
    same_change(twin.generator, players.generator["params"], generator, gans_peer.Generator)
    same_change(twin.average, players.ema["params"], generator, gans_peer.Generator)
