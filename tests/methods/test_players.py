"""One turn of a GAN, against what it does by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.lib.errors import UserError
from experiments.methods.games import LOSSES, POINTS, USUAL_WEIGHTS, GanConfig, penalties
from experiments.methods.players import Game, Turn, begin, generate, play, scores
from jaxgen import divergences, losses, regularizers


class Linear(nn.Module):
    """w . x of all elements of an example."""

    @nn.compact
    def __call__(self, x, context=None):
        w = self.param("w", nn.initializers.normal(0.3), x.shape[1:])
        return jnp.einsum("bhc,hc->b", x, w)


class Shift(nn.Module):
    """z + b as [B, 1, 2]."""

    @nn.compact
    def __call__(self, z, context=None):
        b = self.param("b", nn.initializers.normal(1.0), (1, 2))
        return z + jnp.broadcast_to(b, z.shape)


class Normalized(nn.Module):
    """A generator with batch statistics."""

    averages: bool = False

    @nn.compact
    def __call__(self, z, context=None):
        norm = nn.BatchNorm(use_running_average=self.averages, use_bias=False, use_scale=False)
        return Shift()(norm(z))


def noise(key, count):
    return jax.random.normal(key, (count, 1, 2))


def game(**changes):
    rules = {
        "loss": LOSSES["wasserstein"],
        "critic": Linear(),
        "generator": Shift(),
        "sampler": Shift(),
        "critic_optimizer": optax.sgd(1.0),
        "generator_optimizer": optax.sgd(0.5),
        "noise": noise,
    }
    return Game(**{**rules, **changes})


def reals(updates=2, batch=4):
    x = np.random.default_rng(0).standard_normal((updates, batch, 1, 2))
    return Turn(jnp.asarray(x, jnp.float32))


def one_turn(rules, turn, key=1):
    before = begin(rules, jax.random.key(0), turn.real[0], None)
    after, metrics = jax.jit(partial(play, rules))(before, turn, jax.random.key(key))
    return before, after, metrics


def w_of(players):
    return players.critic["params"]["w"]


def b_of(players):
    return players.generator["params"]["b"]


def noise_of_critic(key=1):
    """The keys that `play` makes of its own."""
    critic_key, generator_key = jax.random.split(jax.random.key(key))
    return jax.random.split(jax.random.split(critic_key, 1)[0]), generator_key


def test_a_turn_of_wgan_with_linear_players():
    """w moves by mean(x) - mean(G(z)), then b by the new w: the cost of G is -w . (z + b)."""
    turn = reals()
    before, after, metrics = one_turn(game(), turn)
    (noise_key, _), _ = noise_of_critic()
    fake = noise(noise_key, 4) + b_of(before)[None]
    w = w_of(before) + turn.real[0].mean(axis=0) - fake.mean(axis=0)
    np.testing.assert_allclose(w_of(after), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b_of(after), b_of(before) + 0.5 * w, rtol=1e-5, atol=1e-6)
    gap = jnp.sum(w_of(before) * (fake.mean(axis=0) - turn.real[0].mean(axis=0)))
    np.testing.assert_allclose(metrics["critic_loss"], gap, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["v_fake"] - metrics["v_real"], gap, rtol=1e-4, atol=1e-6)


def test_counts_and_fresh_examples():
    """Every batch of the turn matters, each update draws its own noise."""
    turn = reals(updates=4)
    _, after, metrics = one_turn(game(loss=LOSSES["relativistic"]), turn)
    assert (metrics["d_steps"], metrics["g_steps"], metrics["images_seen"]) == (3, 1, 12)
    for i in range(4):
        other = turn._replace(real=turn.real.at[i].add(1.0))
        assert (
            jnp.abs(b_of(one_turn(game(loss=LOSSES["relativistic"]), other)[1]) - b_of(after)).max()
            > 1e-4
        )
    # Equal reals: two updates of the critic differ by their noise alone.
    same = Turn(jnp.zeros((3, 4, 1, 2)))
    before, after, _ = one_turn(game(generator_optimizer=optax.sgd(0.0)), same)
    half = one_turn(game(generator_optimizer=optax.sgd(0.0)), Turn(jnp.zeros((2, 4, 1, 2))))[1]
    assert jnp.abs((w_of(after) - w_of(before)) - 2 * (w_of(half) - w_of(before))).max() > 1e-2


def test_the_penalty_is_weighed_and_added_to_the_critic_alone():
    turn = reals()
    plain = one_turn(game(), turn)[1]
    rules = game(penalty=penalties()["gp"], weight=3.0)
    before, after, metrics = one_turn(rules, turn)
    norm = jnp.linalg.norm(w_of(before))
    np.testing.assert_allclose(metrics["penalty"], (norm - 1) ** 2, rtol=1e-4)
    pull = 3.0 * 2 * (norm - 1) * w_of(before) / norm
    np.testing.assert_allclose(w_of(after), w_of(plain) - pull, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(b_of(after), b_of(before) + 0.5 * w_of(after), rtol=1e-4, atol=1e-5)


def test_clip_is_a_projection():
    _, after, _ = one_turn(game(clip=0.1), reals())
    assert jnp.abs(w_of(after)).max() == pytest.approx(0.1)


def test_the_average_has_the_batch_statistics_and_the_sampler_uses_it():
    rules = game(generator=Normalized(), sampler=Normalized(averages=True))
    before, after, _ = one_turn(rules, reals())
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), before.generator, after.generator
    )
    assert min(jax.tree.leaves(moved["batch_stats"])) > 1e-3
    expected = jax.tree.map(lambda old, new: old + 0.9 * (new - old), before.ema, after.generator)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), after.ema, expected)
    z = np.ones((1, 1, 2), np.float32)
    (stats,) = jax.device_get(after.ema)["batch_stats"].values()
    shift = np.asarray(after.ema["params"]["Shift_0"]["b"])
    x = (z - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) + shift
    np.testing.assert_allclose(generate(rules, after.ema, z), x, rtol=1e-5)


def test_a_critics_batch_statistics_are_those_of_the_reals_and_then_of_the_fakes():
    class Judge(nn.Module):
        @nn.compact
        def __call__(self, x, context=None):
            norm = nn.BatchNorm(use_running_average=False, momentum=0.5)
            return Linear()(norm(x))

    turn = reals()
    before, after, _ = one_turn(game(critic=Judge()), turn)
    fake = noise(noise_of_critic()[0][0], 4) + b_of(before)[None]
    # From 0, by halves; the generator's update leaves them alone.
    expected = 0.25 * turn.real[0].mean(axis=(0, 1)) + 0.5 * fake.mean(axis=(0, 1))
    (stats,) = after.critic["batch_stats"].values()
    np.testing.assert_allclose(stats["mean"], expected, rtol=1e-5, atol=1e-6)


def test_the_average_forgets_the_start_and_then_slows_down():
    rules = game(ema_decay=0.5, generator_optimizer=optax.sgd(0.0))
    players = begin(rules, jax.random.key(0), reals().real[0])
    generator = jax.tree.map(lambda x: x + 1, players.generator)
    players = players._replace(generator=generator, g_steps=jnp.int32(100))
    after, _ = play(rules, players, reals(), jax.random.key(0))
    gap = generator["params"]["b"] - after.ema["params"]["b"]
    np.testing.assert_allclose(gap, 0.5, rtol=1e-5)


def test_spectral_vectors_move_once_per_update_of_the_critic():
    rules = game(
        critic=nn.Sequential([lambda x, context: x.reshape(len(x), -1), nn.Dense(3), nn.Dense(1)]),
        critic_optimizer=optax.sgd(0.0),
        spectral=True,
        penalty=penalties()["r1"],
        weight=1.0,
    )
    before, after, metrics = one_turn(rules, reals(updates=3))
    params, vectors = before.critic["params"], before.vectors
    for _ in range(2):
        normalized, vectors = regularizers.spectral_normalize(params, vectors)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), after.vectors, vectors)
    jax.tree.map(np.testing.assert_array_equal, after.critic["params"], params)
    # The penalty sees the normalized critic, whose slope is at most 1.
    assert 0 < metrics["penalty"] < 1.5
    scored = scores(rules, after, reals().real[0])
    normalized, _ = regularizers.spectral_normalize(params, after.vectors)
    expected = rules.critic.apply({"params": normalized}, reals().real[0], None)[:, 0]
    np.testing.assert_allclose(scored, expected, rtol=1e-5)


def test_packs_are_judged_together():
    before, _, metrics = one_turn(game(pack=2), reals())
    assert w_of(before).shape == (1, 4)
    assert metrics["images_seen"] == 4
    assert scores(game(pack=2), before, reals().real[0]).shape == (2,)


def test_contexts_reach_both_players():
    class Told(nn.Module):
        judges: bool

        @nn.compact
        def __call__(self, x, context=None):
            told = jnp.sum(context * self.param("w", nn.initializers.ones, (2,))[None], axis=1)
            return told if self.judges else x + told.reshape(-1, 1, 1)

    rules = game(critic=Told(True), generator=Told(False), sampler=Told(False))
    context = jnp.eye(2)[jnp.array([[0, 0, 1, 0], [1, 1, 0, 1]])]
    turn = reals()._replace(context=context)
    before = begin(rules, jax.random.key(0), turn.real[0], context[0])
    after, metrics = play(rules, before, turn, jax.random.key(0))
    assert metrics["v_real"] == metrics["v_fake"] == 1
    assert metrics["generator_loss"] == -1
    z = noise(jax.random.key(0), 4)
    np.testing.assert_allclose(generate(rules, before.ema, z, context[0]), z + 1, rtol=1e-6)
    assert after.g_steps == 1


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_moves_both_players(name):
    before, after, metrics = one_turn(
        game(loss=LOSSES[name], critic_optimizer=optax.sgd(0.01)), reals()
    )
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert jnp.abs(w_of(after) - w_of(before)).max() > 1e-5
    assert jnp.abs(b_of(after) - b_of(before)).max() > 1e-6
    # From scores of 0 every critic learns to score reals higher.
    blank = {"params": {"w": jnp.zeros((1, 2))}}
    turn = reals()._replace(real=reals().real + 3)
    after, _ = play(game(loss=LOSSES[name]), before._replace(critic=blank), turn, jax.random.key(1))
    assert jnp.min(w_of(after)) > 0


@pytest.mark.parametrize("points", POINTS)
def test_every_place_of_a_penalty(points):
    rules = game(penalty=penalties(points, power=4.0)["div"], weight=0.1)
    before, _, metrics = one_turn(rules, reals())
    np.testing.assert_allclose(metrics["penalty"], jnp.sum(w_of(before) ** 2) ** 2, rtol=1e-4)


def test_what_each_penalty_is_and_where_it_looks():
    """The critic |x|^2 / 2 has the gradient x."""
    real, fake = np.random.default_rng(1).standard_normal((2, 3, 2)).astype(np.float32)
    key = jax.random.key(0)
    between = regularizers.interpolate(key, real, fake)
    around = regularizers.dragan_points(key, real)
    norm = {
        name: np.linalg.norm(x, axis=1)
        for name, x in {"r": real, "f": fake, "b": between, "a": around}.items()
    }
    expected = {
        "gp": (norm["b"] - 1) ** 2,
        "lp": np.maximum(norm["b"] - 1, 0) ** 2,
        "div": norm["b"] ** 4,
        "dragan": (norm["a"] - 1) ** 2,
        "r1": norm["r"] ** 2,
        "r1_r2": np.concatenate([norm["r"], norm["f"]]) ** 2,
    }
    for name, penalty in penalties(power=4.0).items():
        found = penalty(lambda x: jnp.sum(x**2, axis=1) / 2, real, fake, key)
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-6)


def test_f_gans_generator_is_honest_or_heuristic():
    v = jnp.linspace(-1, 1, 5)
    record = divergences.squared_hellinger()
    honest, heuristic = LOSSES["squared_hellinger"], LOSSES["squared_hellinger_heuristic"]
    np.testing.assert_allclose(honest.generator(v, v), losses.f_gan_generator_loss(record, v))
    np.testing.assert_allclose(
        heuristic.generator(v, v), losses.f_gan_heuristic_generator_loss(record, v)
    )
    assert jnp.abs(honest.generator(v, v) - heuristic.generator(v, v)).max() > 1


def test_every_penalty_has_a_usual_weight():
    assert {*penalties(), "none"} == {*USUAL_WEIGHTS}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"loss": "magic"}, "--loss magic: expected one of non_saturating, "),
        ({"penalty_weight": -1.0}, "--penalty-weight -1.0: expected a number of at least 0"),
        ({"penalty_weight": float("nan")}, "--penalty-weight nan: expected a number of at least 0"),
        ({"beta1": 1.0}, "--beta1 1.0: expected a number below 1"),
        ({"pack": 3}, "--batch-size 64: expected a multiple of --pack 3"),
        (
            {"critic_norm": "batch", "penalty": "gp"},
            "--critic-norm batch: expected layer, group or none with --penalty gp",
        ),
    ],
)
def test_flags_that_make_no_sense(flags, message):
    with pytest.raises(UserError, match=message) as error:
        GanConfig(**flags)
    assert "\n" not in str(error.value)


def test_a_game_has_what_its_flags_say():
    rules = GanConfig(penalty="r1", generator_norm="none", clip=0.5, pack=2).game((8, 8, 1))
    assert (rules.weight, rules.clip, rules.pack) == (0.5, 0.5, 2)
    assert rules.sampler is rules.generator
    assert GanConfig(penalty="gp", penalty_weight=0.0).game((8, 8, 1)).weight == 0
    assert GanConfig(penalty="none").game((8, 8, 1)).penalty is None
