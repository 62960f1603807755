"""Training of a GAN: the rules of a game, and one turn of its two players.

A game consists of a loss, a penalty and two networks, in any combination. One turn updates the
critic `critic_updates` times, each time on new noise and new real examples, and then the generator
once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen import losses, regularizers
from jaxgen.optimizers import update_ema


class Loss(NamedTuple):
    """What the players minimise, as functions of raw scores; a higher score means more real.

    Attributes:
      critic: (v_real, v_fake, real, fake) -> pytree of [B]; the means of its leaves are added up.
      generator: (v_real, v_fake) -> [B].
    """

    critic: Callable
    generator: Callable


class Game(NamedTuple):
    """Everything that stays fixed during training.

    Attributes:
      loss: of both players.
      penalty: (critic, real, fake, key) -> [B], added to the critic's loss; critic: x -> [B].
        None: no penalty.
      weight: of the penalty.
      critic: flax module (x, context) -> scores, [B] or [B, 1].
      generator: flax module (z, context) -> examples, in training mode.
      sampler: the generator in sampling mode: batch normalization uses its running averages.
      critic_optimizer: optax transformation.
      generator_optimizer: likewise.
      noise: (key, B) -> z [B, ...].
      ema_decay: of the running average of the generator, see `jaxgen.optimizers.update_ema`.
      spectral: whether the critic is spectrally normalized.
      clip: the critic's weights are clipped to [-clip, clip] after each update; 0: no clipping.
      pack: examples that the critic judges at once (PacGAN).
    """

    loss: Loss
    critic: nn.Module
    generator: nn.Module
    sampler: nn.Module
    critic_optimizer: optax.GradientTransformation
    generator_optimizer: optax.GradientTransformation
    noise: Callable
    penalty: Callable | None = None
    weight: float = 0.0
    ema_decay: float = 0.999
    spectral: bool = False
    clip: float = 0.0
    pack: int = 1


class Players(NamedTuple):
    """The state of training.

    Attributes:
      critic: flax variables, including batch statistics.
      generator: likewise.
      ema: running average of the generator's variables, including batch statistics.
      vectors: power-iteration vectors of the critic's spectral normalization.
      critic_opt_state: of its optimizer.
      generator_opt_state: likewise.
      d_steps: updates of the critic.
      g_steps: updates of the generator.
      images_seen: real examples that the critic has been trained on.
    """

    critic: Any
    generator: Any
    ema: Any
    vectors: Any
    critic_opt_state: Any
    generator_opt_state: Any
    d_steps: Any
    g_steps: Any
    images_seen: Any


class Turn(NamedTuple):
    """Real examples [N, B, ...] and contexts ([N, B, K] or None) for the N updates of one turn."""

    real: Any
    context: Any = None


def begin(game: Game, key, real, context=None) -> Players:
    """The players before the first update.

    Args:
      game: the rules.
      key: a PRNG key.
      real: some real examples [B, ...], for their shape.
      context: [B, K] or None.
    """
    critic_key, generator_key, vector_key, noise_key = jax.random.split(key, 4)
    real = real[: game.pack]
    context = None if context is None else context[:1]
    packs = losses.pack(real, game.pack)
    critic = game.critic.init(critic_key, packs, context)
    generator = game.generator.init(generator_key, game.noise(noise_key, 1), context)
    spectral = regularizers.spectral_vectors(vector_key, critic["params"])
    zero = jnp.zeros((), jnp.int32)
    return Players(
        critic,
        generator,
        jax.tree.map(jnp.copy, generator),  # a copy: a buffer can be donated only once
        spectral if game.spectral else {},
        game.critic_optimizer.init(critic["params"]),
        game.generator_optimizer.init(generator["params"]),
        zero,
        zero,
        zero,
    )


def play(game: Game, players: Players, turn: Turn, key) -> tuple[Players, dict[str, Any]]:
    """One turn: the generator gets the last batch, the critic all others.

    Args:
      game: the rules.
      players: before the turn.
      turn: real examples and contexts of critic_updates + 1 updates.
      key: a PRNG key.

    Returns:
      The players after the turn, and scalars: critic_loss, penalty, v_real, v_fake (means over the
      critic's updates), generator_loss, d_steps, g_steps, images_seen.
    """
    critic_key, generator_key = jax.random.split(key)
    first = jax.tree.map(lambda x: x[:-1], turn)
    last = jax.tree.map(lambda x: x[-1], turn)
    keys = jax.random.split(critic_key, len(first.real))

    def update(players, inputs):
        return _update_critic(game, players, *inputs)

    players, metrics = jax.lax.scan(update, players, (first, keys))
    players, generator_loss = _update_generator(game, players, last, generator_key)
    counts = {name: getattr(players, name) for name in ("d_steps", "g_steps", "images_seen")}
    means = jax.tree.map(jnp.mean, metrics)
    return players, {**means, "generator_loss": generator_loss, **counts}


def generate(game: Game, variables, z, context=None) -> Any:
    """Examples [B, ...] of the generator with these variables, such as `players.ema`."""
    return game.sampler.apply(variables, z, context)


def scores(game: Game, players: Players, x, context=None):
    """The critic's scores of examples x, one per pack; batch normalization uses statistics of x."""
    variables, _ = _normalized(game, players.critic, players.vectors)
    context = None if context is None else context[:: game.pack]
    return _score(game, variables, losses.pack(x, game.pack), context)[0]


def _update_critic(game: Game, players: Players, turn: Turn, key):
    noise_key, point_key = jax.random.split(key)
    count = len(turn.real)
    z = game.noise(noise_key, count)
    fake, _ = _advance(game.generator, players.generator, z, turn.context)
    real, fake = losses.pack(turn.real, game.pack), losses.pack(fake, game.pack)
    context = None if turn.context is None else turn.context[:: game.pack]

    def loss(params):
        before = {**players.critic, "params": params}
        variables, vectors = _normalized(game, before, players.vectors)
        v_real, variables = _score(game, variables, real, context)
        v_fake, variables = _score(game, variables, fake, context)
        terms = game.loss.critic(v_real, v_fake, real, fake)
        value = sum(jnp.mean(term) for term in jax.tree.leaves(terms))
        penalty = jnp.zeros(())
        if game.penalty:

            def critic(x):
                # Points at both kinds are 2 B long, reals then fakes: each half has the contexts.
                own = None if context is None else jnp.tile(context, (len(x) // len(context), 1))
                return _score(game, variables, x, own)[0]

            penalty = jnp.mean(game.penalty(critic, real, fake, point_key))
        after = {**variables, "params": params}
        metrics = {
            "critic_loss": value,
            "penalty": penalty,
            "v_real": jnp.mean(v_real),
            "v_fake": jnp.mean(v_fake),
        }
        return value + game.weight * penalty, (after, vectors, metrics)

    gradient, (variables, vectors, metrics) = jax.grad(loss, has_aux=True)(players.critic["params"])
    updates, state = game.critic_optimizer.update(
        gradient, players.critic_opt_state, players.critic["params"]
    )
    params = optax.apply_updates(players.critic["params"], updates)
    if game.clip:
        params = regularizers.clip_weights(params, game.clip)
    players = players._replace(
        critic={**variables, "params": params},
        vectors=vectors,
        critic_opt_state=state,
        d_steps=players.d_steps + 1,
        images_seen=players.images_seen + count,
    )
    return players, metrics


def _update_generator(game: Game, players: Players, turn: Turn, key):
    z = game.noise(key, len(turn.real))
    context = None if turn.context is None else turn.context[:: game.pack]
    # The critic's batch statistics and spectral vectors stay as they are in this update.
    critic, _ = _normalized(game, players.critic, players.vectors)
    v_real, _ = _score(game, critic, losses.pack(turn.real, game.pack), context)

    def loss(params):
        before = {**players.generator, "params": params}
        fake, after = _advance(game.generator, before, z, turn.context)
        v_fake, _ = _score(game, critic, losses.pack(fake, game.pack), context)
        return jnp.mean(game.loss.generator(v_real, v_fake)), after

    params = players.generator["params"]
    (value, variables), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = game.generator_optimizer.update(gradient, players.generator_opt_state, params)
    generator = {**variables, "params": optax.apply_updates(params, updates)}
    count = players.g_steps + 1
    players = players._replace(
        generator=generator,
        ema=update_ema(generator, players.ema, count, game.ema_decay),
        generator_opt_state=state,
        g_steps=count,
    )
    return players, value


def _advance(module: nn.Module, variables, *inputs):
    """(answer, variables with updated batch statistics, where the module has any)."""
    answer, new = module.apply(variables, *inputs, mutable=["batch_stats"])
    return answer, {**variables, **new}


def _score(game: Game, variables, x, context):
    answer, variables = _advance(game.critic, variables, x, context)
    return answer.reshape(len(x)), variables


def _normalized(game: Game, variables, vectors):
    """(variables, vectors) after spectral normalization, unchanged where the game has none."""
    if not game.spectral:
        return variables, vectors
    params, vectors = regularizers.spectral_normalize(variables["params"], vectors)
    return {**variables, "params": params}, vectors
