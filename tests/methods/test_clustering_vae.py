"""The models of the clustering VAE, against transcriptions of their losses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import vae_clustering
from experiments.lib.errors import UserError
from experiments.lib.sources.images import load_images
from experiments.methods.clustering_vae import METHODS
from jaxgen import losses

CONFIG = dataclasses.replace(vae_clustering.SMOKE, clusters=4)
SHAPE = (8, 8, 1)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, *SHAPE), np.float32)


def started(method, images):
    """The model, and parameters in which no term is at a symmetric point."""
    model = METHODS[method](CONFIG, SHAPE)
    params = model.init(KEY, images)
    rng = np.random.default_rng(1)
    params["means"] = jnp.asarray(rng.standard_normal(params["means"].shape), jnp.float32)
    for name in ("log_std", "weights"):
        if name in params:
            params[name] = jnp.asarray(0.3 * rng.standard_normal(params[name].shape), jnp.float32)
    return model, params


def latents(model, params, images):
    """z, eps and log_std that the loss draws with KEY, from the encoder's mean alone."""
    mean = np.asarray(model.encode(params, images), np.float64)
    z = losses.reparameterize(KEY, mean.astype(np.float32), jnp.zeros(mean.shape))
    return mean, np.asarray(z, np.float64) - mean


@pytest.mark.parametrize("method", ["post", "post_analytic", "bayes"])
def test_plain_losses_are_those_of_the_post_and_of_vade(method, images):
    model, params = started(method, images)
    network = params["networks"]["params"]
    network["latents"]["bias"] = jnp.arange(6.0) / 10
    network["latents"]["kernel"] = network["latents"]["kernel"].at[:, 3:].set(0)
    total, (objective, _) = model.loss(params, KEY, images, 0.5, 0)
    assert objective.shape == (1,)

    mean, eps = latents(model, params, images)
    log_std = np.broadcast_to([0.3, 0.4, 0.5], mean.shape)
    z = mean + np.exp(log_std) * eps
    decoded = np.asarray(model.decode(params, jnp.asarray(z, jnp.float32)), np.float64)
    error = CONFIG.error_weight * 784 / 64 / 2 * ((decoded - images) ** 2).sum((1, 2, 3))
    centers, s = np.asarray(params["means"], np.float64), np.zeros((4, 3))
    prior = np.full(4, 0.25)
    if method == "bayes":
        s = np.asarray(params["log_std"], np.float64)
        prior = np.exp(params["weights"]) / np.exp(params["weights"]).sum()
    apart = z[:, None] - centers[None]
    log_normal = (-0.5 * (apart / np.exp(s)) ** 2 - s - 0.5 * np.log(2 * np.pi)).sum(-1)
    if method == "bayes":
        joint = np.log(prior) + log_normal
        posterior = np.exp(joint - joint.max(1, keepdims=True))
        posterior /= posterior.sum(1, keepdims=True)
    else:  # the encoder that maps images to z has the classifier behind it
        weights = params["classifier"]["params"]
        hidden = np.maximum(
            z @ np.asarray(weights["Dense_0"]["kernel"]) + np.asarray(weights["Dense_0"]["bias"]), 0
        )
        scores = hidden @ np.asarray(weights["Dense_1"]["kernel"])
        posterior = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    log_q = (-0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
    of_z = log_q - (posterior * log_normal).sum(1)
    if method == "post_analytic":
        squares = (mean[:, None] - centers[None]) ** 2
        own = np.exp(2 * log_std) - 1 - 2 * log_std
        kl = 0.5 * (squares + own[:, None]).sum(-1)
        of_z = (posterior * kl).sum(1)
    of_y = (posterior * np.log(posterior / prior)).sum(1)
    np.testing.assert_allclose(total, np.mean(error + of_z + of_y), rtol=2e-5)


def test_views_without_changes_share_their_clusters_and_become_sharper():
    still = dataclasses.replace(CONFIG, rotation=0, scale=1, shear=0, shift=0)
    model = METHODS["invariant"](still, SHAPE)
    images = load_images("digits").train[np.arange(64)]["image"] / np.float32(16)
    params = model.init(KEY, images)
    cosines = model.logits(params, images)
    assert cosines.shape == (CONFIG.classifiers, 64, CONFIG.clusters)
    assert np.abs(cosines).max() <= 1 + 1e-5
    for progress, sharpness in ((0.0, 2.0), (0.3, 11.0), (0.6, 20.0), (1.0, 20.0)):
        (_, (objectives, _)) = model.loss(params, KEY, images, progress, 1)
        p = jax.nn.softmax(sharpness * cosines)
        expected = -losses.assignment_information(p, p)
        np.testing.assert_allclose(objectives, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_constant_images_give_finite_losses_and_gradients(method):
    model = METHODS[method](CONFIG, SHAPE)
    images = np.zeros((6, *SHAPE), np.float32)
    params = model.init(KEY, images)
    (total, _), slope = jax.value_and_grad(model.loss, has_aux=True)(params, KEY, images, 0.0, 0)
    assert np.isfinite(total)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize("method", METHODS)
def test_a_decoder_whose_logits_are_zero_gives_the_mean_of_each_channel(method):
    model = METHODS[method](CONFIG, (8, 8, 3))
    images = np.random.default_rng(2).random((6, 8, 8, 3), np.float32) * np.float32([0.1, 0.5, 0])
    params = model.init(KEY, images)
    params["networks"] = jax.tree.map(jnp.zeros_like, params["networks"])
    decoded = model.decode(params, jnp.ones((2, CONFIG.latents)))
    expected = images.mean((0, 1, 2))
    expected[2] = 0.01  # black: the least grey
    np.testing.assert_allclose(decoded, np.broadcast_to(expected, decoded.shape), rtol=1e-5)


def test_more_clusters_than_images_are_refused():
    with pytest.raises(UserError, match=r"--clusters 2000: digits has 1437 training images"):
        vae_clustering.build(dataclasses.replace(CONFIG, clusters=2000))


def test_a_single_image_has_nothing_to_be_compared_with():
    with pytest.raises(UserError, match=r"--batch-size 1: expected an integer of at least 2"):
        dataclasses.replace(CONFIG, batch_size=1)


def test_the_classifier_with_the_lowest_objective_counts():
    data, method = vae_clustering.build(CONFIG)
    batch = {"image": data.train[np.arange(16)]["image"]}
    state = method.init(KEY, batch)
    numbers = []
    for objectives in ([-1.0, -2.0], [-2.0, -1.0]):
        chosen = state._replace(objectives=jnp.array(objectives))
        numbers.append(method.judge(chosen, KEY))
        assert numbers[-1]["objective"] == -2.0
    assert numbers[0] != numbers[1]


def test_samples_of_vade_follow_its_learned_weights_and_deviations():
    config = dataclasses.replace(CONFIG, method="bayes")
    data, method = vae_clustering.build(config)
    state = method.init(KEY, {"image": data.train[np.arange(16)]["image"]})
    params = state.params | {"log_std": jnp.full((4, 3), -20.0)}
    params |= {"means": 5 * jnp.eye(4, 3), "weights": jnp.array([0.0, 50.0, 0.0, 0.0])}
    decoded = METHODS["bayes"](config, SHAPE).decode(params, params["means"][1:2])
    samples = method.sample(state._replace(params=params), KEY, 20)
    np.testing.assert_array_equal(samples, np.round(16 * np.repeat(decoded, 20, axis=0)))
