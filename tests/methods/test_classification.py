"""The classifier: the loss and the accuracy it reports, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.lib.sources.images import load_images
from experiments.methods.classification import ClassifierConfig, classifier, mlp, pixels

DATA = load_images("digits")
BATCH = jax.tree.map(jnp.asarray, DATA.train[np.arange(128)])
KEY = jax.random.key(0)


def test_pixels_are_within_zero_and_one():
    assert (pixels(BATCH, DATA).min(), pixels(BATCH, DATA).max()) == (0, 1)


def test_what_is_measured_is_right():
    network = mlp(10, 8, 1)
    method = classifier(network, optax.sgd(0.1), DATA)
    state = method.init(KEY, BATCH)
    measured = method.evaluate(state, BATCH, KEY)
    logits = np.asarray(network.apply(state.params, pixels(BATCH, DATA)), np.float64)
    label = np.asarray(BATCH["label"])
    np.testing.assert_array_equal(measured["accuracy"], logits.argmax(1) == label)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(shares[np.arange(128), label])
    np.testing.assert_allclose(measured["cross_entropy"], expected, rtol=1e-4)
    assert logits.std() > 0.1  # the last layer does not start at zero
    _, metrics = method.step(state, BATCH, KEY)
    np.testing.assert_allclose(metrics["loss"], expected.mean(), rtol=1e-4)


def test_it_learns_what_it_is_shown():
    method = classifier(mlp(10, 32, 1), optax.adam(1e-2), DATA)
    state = method.init(KEY, BATCH)
    step = jax.jit(method.step)
    for _ in range(60):
        state, _ = step(state, BATCH, KEY)
    assert method.evaluate(state, BATCH, KEY)["accuracy"].mean() > 0.99


def test_a_penalty_is_added_to_the_loss_and_followed():
    def penalty(params, images):
        return 3.0 * optax.tree.norm(params, squared=True) + 0 * images.sum()

    plain, held = (classifier(mlp(10, 8, 0), optax.sgd(0.1), DATA, p) for p in (None, penalty))
    state = plain.init(KEY, BATCH)
    free, free_metrics = plain.step(state, BATCH, KEY)
    pulled, metrics = held.step(state, BATCH, KEY)
    added = penalty(state.params, BATCH["image"] * 1.0)
    np.testing.assert_allclose(metrics["loss"] - free_metrics["loss"], added, rtol=1e-4)
    expected = jax.tree.map(lambda p, start: p - 0.1 * 6 * start, free.params, state.params)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-5), pulled.params, expected)


def test_held_out_data_is_neither_trained_on_nor_the_test_split():
    data = ClassifierConfig(held_out=True).images()
    assert [len(data.train), len(data.test)] == [1149, 288]
    images = [part[np.arange(len(part))]["image"] for part in (data.train, data.test)]
    whole = DATA.train[np.arange(1437)]["image"]
    np.testing.assert_array_equal(np.concatenate(images), whole)
    np.testing.assert_array_equal(data.test[287]["image"], whole[-1])
    assert len(ClassifierConfig().images().test) == len(DATA.test) == 360
