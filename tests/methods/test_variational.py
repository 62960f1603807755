"""Autoencoders: what is sampled, measured and drawn, of a model with known latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.dataset import Arrays
from experiments.lib.sources.image_set import Images
from experiments.methods import variational as module
from experiments.methods.likelihood import LikelihoodConfig
from experiments.methods.variational import Autoencoder, autoencoder, least_log_std

SHAPE = (8, 8, 1)
CONFIG = LikelihoodConfig(steps=40, init_batch=4, learning_rate=1e-2, weight_decay=0.0)


def encode(params, y):
    """Two latents: the mean of the image, and its first pixel."""
    return jnp.mean(y, (1, 2, 3))[:, None], y[:, 0, 0]


def decode(params, z):
    """Grey images of the first latent plus `shift`."""
    return jnp.broadcast_to(params["shift"] + z[0][:, :, None, None], (len(z[0]), *SHAPE))


def bound(params, key, y):
    return jnp.sum((params["shift"] - params["log_std"]) * y, (1, 2, 3))


def init(key, y):
    return {"shift": jnp.float32(0.5), "log_std": jnp.float32(0)}


MODEL = Autoencoder(init, bound, encode, decode)


@pytest.fixture
def fitted(monkeypatch):
    """(method, state, a batch of 64 test images, what goes into the sheets by title)."""
    rng = np.random.default_rng(0)
    split = Arrays({"image": rng.integers(0, 10, (64, *SHAPE)).astype(np.uint8)})
    data = Images("noise", split, split, SHAPE, 10)
    method = autoencoder(MODEL, data, CONFIG, temperatures=(1.0, 0.5))
    batch = split[np.arange(64)]
    sheets = {}

    def sheet(images, columns, title, rows=()):
        sheets[title] = np.asarray(images)
        return np.ones((8, 8, 1))

    monkeypatch.setattr(module, "sheet", sheet)
    return method, method.init(jax.random.key(0), batch), batch, sheets


def test_samples_are_decoded_normal_latents(fitted):
    method, state, _, _ = fitted
    samples = method.sample(state, jax.random.key(0), 500)
    assert samples.shape == (500, *SHAPE)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples, samples[:, :1, :1] + np.zeros(SHAPE, np.uint8))
    # 0.5 + z is below 0 or above 1 with a probability of 0.31 each.
    for level in (0, 9):
        assert 0.25 < (samples[:, 0, 0] == level).mean() < 0.45


def test_the_error_is_that_of_the_latents_without_noise(fitted):
    method, state, batch, _ = fitted
    numbers = method.evaluate(state, batch, jax.random.key(1))
    y = (batch["image"] + jax.random.uniform(jax.random.key(1), (64, *SHAPE))) / 10
    error = 0.5 + np.mean(y, (1, 2, 3), keepdims=True) - y
    rmse = np.sqrt(np.mean(error**2, axis=(1, 2, 3)))
    np.testing.assert_allclose(numbers["reconstruction_rmse"], rmse, rtol=1e-5)


def test_pictures_show_what_their_titles_say(fitted):
    method, state, batch, sheets = fitted
    pictures = method.pictures(state, batch, jax.random.key(1))
    assert set(pictures) == {"samples", "reconstruction", "interpolation"}
    by_start = {title.split(",")[-1].strip(): images for title, images in sheets.items()}
    warm, cool = by_start["temperature 1"], by_start["temperature 0.5"]
    np.testing.assert_allclose(cool - 0.5, (warm - 0.5) / 2, atol=1e-6)
    assert np.std(warm) > 0.5
    real = sheets["test images"]
    assert (np.floor(real * 10 + 1e-4) == batch["image"]).mean() > 0.999
    pairs = by_start["without noise"].reshape(4, 2, 8, *SHAPE)
    np.testing.assert_array_equal(pairs[:, 0].reshape(-1, *SHAPE), real[:32])
    means = real.mean((1, 2, 3))
    np.testing.assert_allclose(pairs[:, 1, :, 0, 0, 0].ravel(), 0.5 + means[:32], atol=1e-5)
    lines = sheets["each row: straight line between the latents of two test images"]
    lines = lines[:, 0, 0, 0].reshape(8, 8) - 0.5
    np.testing.assert_allclose(lines[:, 0], means[0:16:2], atol=1e-5)
    np.testing.assert_allclose(lines[:, -1], means[1:16:2], atol=1e-5)
    np.testing.assert_allclose(np.diff(lines, 2), 0, atol=1e-5)


def test_log_deviations_learn_ten_times_as_fast(fitted):
    method, start, batch, _ = fitted
    state, step = start, jax.jit(method.step)
    for i in range(3):
        state, _ = step(state, batch, jax.random.key(i))
    change = {name: float(state.params[name] - start.params[name]) for name in start.params}
    assert change["log_std"] == pytest.approx(-10 * change["shift"], rel=1e-3)
    assert change["shift"] == pytest.approx(0.015, rel=0.1)  # the first rate is 0, then 0.005, 0.01


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_floor_is_a_small_part_of_a_grey_level(levels):
    assert np.exp(least_log_std(levels)) == pytest.approx(1 / (64 * levels))
