"""The objectives of InfoMax: who learns from which term, views, flags."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.errors import UserError
from experiments.methods.infomax import (
    OBJECTIVES,
    InfoMaxConfig,
    adversarial_prior,
    encode,
    infomax,
    views,
)
from jaxgen.models import MLP

SMALL = {"batch_size": 16, "width": 4, "code": 4, "units": 8, "steps": 4}


def moved(config):
    """The groups of parameters that a step moves, its metrics, and the state before it.

    A step on images that are all black is finite, too.
    """
    data = config.images()
    method = infomax(config, data)
    batch = data.train[np.arange(config.batch_size)]
    state = jax.jit(method.init)(jax.random.key(0), batch)
    step = jax.jit(method.step)
    after, metrics = step(state, batch, jax.random.key(1))
    black = step(state, {**batch, "image": 0 * batch["image"]}, jax.random.key(1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(black))
    changes = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), state.params, after.params)
    groups = {n for n, change in changes.items() if max(jax.tree.leaves(change), default=0) > 0}
    return groups, metrics, state


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_reports_and_trains_what_has_a_weight(objective):
    config = InfoMaxConfig(objective=objective, **SMALL)
    groups, metrics, _ = moved(config)
    weights = config.weights()
    wanted = {name for name, weight in weights.items() if weight}
    game = {"critic"} if "prior" in wanted and objective != "su" else set()
    assert set(metrics) == {"loss"} | wanted | game
    assert groups == {"encoder", "terms"} | game
    total = sum((weights | {"critic": 1.0})[name] * metrics[name] for name in wanted | game)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)


def test_without_the_local_term_and_with_the_other_priors():
    config = InfoMaxConfig(objective="su", local_weight=0, prior="adversarial", **SMALL)
    groups, metrics, _ = moved(config)
    assert set(metrics) == {"loss", "global", "prior", "critic"}
    assert groups == {"encoder", "terms", "critic"}
    config = InfoMaxConfig(objective="jsd", global_weight=1, prior="kl", **SMALL)
    groups, metrics, state = moved(config)
    assert set(metrics) == {"loss", "global", "local", "prior"}
    images = config.images().test[np.arange(3)]["image"] / 16.0
    encoding = encode(config, state.params["encoder"], jnp.asarray(images, jnp.float32))
    assert encoding.code.shape == (3, 4)
    assert encoding.features.shape == (3, 4, 4, 4)


def test_a_gaussian_code_starts_with_little_noise():
    config = InfoMaxConfig(objective="su", **SMALL)
    data = config.images()
    method, batch = infomax(config, data), data.train[np.arange(config.batch_size)]
    state = method.init(jax.random.key(0), batch)
    _, metrics = method.step(state, batch, jax.random.key(1))
    assert metrics["prior"] < 3
    zeros = jax.tree.map(jnp.zeros_like, state.params["encoder"])
    state = state._replace(params=state.params | {"encoder": zeros})
    _, metrics = method.step(state, batch, jax.random.key(1))  # of N(0, exp(-2)) from N(0, 1)
    np.testing.assert_allclose(metrics["prior"], (np.exp(-2) - 1 + 2) / 2, rtol=1e-5)


def test_each_side_of_the_prior_learns_from_its_own_loss():
    critic, code = MLP(1, hidden=(8,)), jnp.linspace(-1, 1, 12).reshape(4, 3)
    params = critic.init(jax.random.key(0), code)

    def loss(params, code, side):
        return adversarial_prior(critic, params, code, jax.random.key(1))[side].sum()

    own, theirs = (jax.grad(loss, (0, 1))(params, code, side) for side in (0, 1))
    assert max(jnp.abs(x).max() for x in jax.tree.leaves(own[0])) == 0
    assert jnp.abs(own[1]).min() > 0
    assert min(jnp.abs(x).max() for x in jax.tree.leaves(theirs[0])) > 0
    assert jnp.abs(theirs[1]).max() == 0

    def score(z):
        return critic.apply(params, z)[:, 0].sum()

    # The encoder raises the score of its codes.
    assert (jnp.sum(own[1] * jax.grad(score)(code), axis=1) < 0).all()


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (3, 12, 10, 3)])
def test_views_are_images_that_differ(shape):
    images = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    one, other = (jax.jit(views)(key, images) for key in jax.random.split(jax.random.key(0)))
    assert one.shape == shape
    for view in (one, other):
        assert 0 <= view.min() < view.max() <= 1
        assert (jnp.abs(view - images).max(axis=(1, 2, 3)) > 0.05).all()
    assert (jnp.abs(one - other).max(axis=(1, 2, 3)) > 0.05).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batch_size": 1}, "--batch-size 1: expected at least 2"),
        (
            {"objective": "two_views", "local_weight": 1.0},
            "--local-weight: --objective two_views has no such term",
        ),
        ({"local_weight": -1.0}, "--local-weight -1"),
    ],
)
def test_refused_flags(flags, message):
    with pytest.raises(UserError, match=message):
        InfoMaxConfig(**flags)
