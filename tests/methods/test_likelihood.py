"""Maximum likelihood of a model with a closed form: the bound, the keys, and the judge."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.lib.dataset import Arrays
from experiments.lib.sources.image_set import Images
from experiments.methods import pixel_judge
from experiments.methods.likelihood import Density, LikelihoodConfig, maximum_likelihood

CONFIG = LikelihoodConfig(steps=40, learning_rate=0.1, init_batch=4)


def images(size=8):
    def split(count, seed):
        image = np.random.default_rng(seed).integers(0, 10, (count, size, size, 1))
        return Arrays({"image": image.astype(np.uint8)})

    return Images("noise", split(40, 0), split(30, 1), (size, size, 1), 10)


def gaussian(slack=0.0):
    """Independent N(mean, 1) for each pixel; `slack`: of a bound with noise of mean -slack."""

    def log_prob(params, key, y):
        exact = jax.scipy.stats.norm.logpdf(y, params["mean"]).sum((1, 2, 3))
        return exact - slack * (1 + jax.random.normal(key, exact.shape))

    def sample(params, key, count):
        return params["mean"] + jnp.zeros((count, 8, 8, 1))

    return Density(lambda key, y: {"mean": jnp.mean(y)}, log_prob, sample)


def fit(data, density, config=CONFIG, **rest):
    return maximum_likelihood(density, optax.adam(0.01), data, config, **rest)


def test_bits_per_dim_are_those_of_the_dequantized_integers():
    data = images()
    method = fit(data, gaussian())
    batch = data.test[np.arange(30)]
    state = method.init(jax.random.key(0), batch)
    state = state._replace(ema={"mean": jnp.float32(0.3)})
    bits = method.evaluate(state, batch, jax.random.key(1))["bits_per_dim"]
    y = (batch["image"] + jax.random.uniform(jax.random.key(1), (30, 8, 8, 1))) / 10
    log_prob = -np.sum((y - 0.3) ** 2, axis=(1, 2, 3)) / 2 - 32 * math.log(2 * math.pi)
    expected = log_prob - 64 * math.log(10)
    np.testing.assert_allclose(bits, -expected / (64 * math.log(2)), rtol=1e-5)
    nats = method.log_prob(state, batch["image"], jax.random.key(1))
    np.testing.assert_allclose(nats, expected, rtol=1e-5)


def test_a_bound_draws_from_the_key_and_not_what_the_dequantization_drew():
    data = images()
    batch = data.test[np.arange(30)]
    seen = {}

    def log_prob(params, key, y):
        seen["noise"], seen["y"] = jax.random.uniform(key, y.shape), y
        return jnp.sum(params["mean"] * y, (1, 2, 3))

    method = fit(data, gaussian()._replace(log_prob=log_prob))
    state = method.init(jax.random.key(0), batch)
    drawn = []
    for seed in (1, 1, 2):
        method.evaluate(state, batch, jax.random.key(seed))
        drawn.append(seen["noise"])
        dequantized = np.ravel(seen["y"] * 10 - batch["image"])
        assert abs(np.corrcoef(np.ravel(seen["noise"]), dequantized)[0, 1]) < 0.1
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 0.1


def test_training_finds_the_mean_and_its_running_average_is_tested():
    data = images()
    batch = data.train[np.arange(40)]
    method = fit(data, gaussian(slack=0.1))
    state = method.init(jax.random.key(0), batch)
    state = state._replace(params={"mean": jnp.float32(0.0)}, ema={"mean": jnp.float32(0.0)})
    step = jax.jit(method.step)
    for i in range(100):
        state, metrics = step(state, batch, jax.random.key(i))
    assert state.count == 100
    assert float(state.params["mean"]) == pytest.approx(
        (batch["image"].mean() + 0.5) / 10, abs=0.02
    )
    assert 0 < float(state.ema["mean"]) < float(state.params["mean"])
    assert metrics.keys() == {"loss", "grad_norm", "learning_rate"}
    # What is tested, sampled and judged is the average.
    moved = state._replace(params={"mean": jnp.float32(9.0)})
    bits, other = (
        method.evaluate(s, batch, jax.random.key(0))["bits_per_dim"] for s in (state, moved)
    )
    np.testing.assert_array_equal(bits, other)
    level = int(10 * float(state.ema["mean"]))
    np.testing.assert_array_equal(method.sample(moved, jax.random.key(0), 3), level)


def test_the_judge_counts_parameters_and_compares_samples(tmp_path):
    data = images()
    method = fit(data, gaussian(), dataclasses.replace(CONFIG, workdir=str(tmp_path / "run")))
    state = method.init(jax.random.key(0), data.test[np.arange(4)])
    numbers = method.judge(state, jax.random.key(0))
    assert numbers["parameters"] == 1
    assert numbers["samples"] == 30
    floor = pixel_judge.floor_of_pixels(data, tmp_path / "extractors")
    assert numbers["swd_of_real"] == floor["swd"]
    assert numbers["swd"] > 1.5 * floor["swd"]  # all samples are one grey


def test_images_too_small_for_the_judge_still_have_a_count():
    data = images(4)
    method = fit(data, gaussian())
    state = method.init(jax.random.key(0), data.test[np.arange(4)])
    assert method.judge(state, jax.random.key(0)) == {"parameters": 1}


def test_what_is_held_out_is_of_the_training_images():
    config = LikelihoodConfig(held_out=True)
    data, whole = config.images(), LikelihoodConfig().images()
    assert len(data.train) + len(data.test) == len(whole.train)
    last = data.test[len(data.test) - 1]["image"]
    np.testing.assert_array_equal(last, whole.train[len(whole.train) - 1]["image"])
