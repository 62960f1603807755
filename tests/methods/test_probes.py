"""Probes of frozen features: known answers, chance, and that nothing but the key decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from experiments.lib.dataset import Arrays
from experiments.lib.sources.images import load_images
from experiments.methods import probes
from experiments.methods.probes import Encoded, encode, probe, scores

KEY = jax.random.key(0)
STEPS = 300


def draw(seed, size, spread=0.3):
    """Three classes around the corners of a triangle, in units that differ, and a constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=size)
    corners = np.array([[0, 0], [1, 0], [0, 1]])
    x = corners[labels] + spread * rng.normal(size=(size, 2))
    x = np.concatenate([x * [1000, 0.01] + [5, 700], np.full((size, 1), 3.0)], axis=1)
    return Encoded(x.astype(np.float32), labels)


def test_separable_classes_are_found_and_shuffled_ones_are_not():
    train, test = draw(0, 300, spread=0.1), draw(1, 300, spread=0.1)
    found = scores(train, test, 3, KEY, steps=STEPS)
    assert set(found) == set(probes.METRICS)
    assert min(found["linear"], found["mlp"]) > 0.98
    chance = test._replace(labels=np.random.default_rng(5).permutation(test.labels))
    for accuracy in scores(train, chance, 3, KEY, steps=STEPS).values():
        assert abs(accuracy - 1 / 3) < 4 * np.sqrt(2 / 9 / 300)


def test_neighbours_are_scikit_learns():
    train, test = draw(0, 200), draw(1, 150)
    expected = KNeighborsClassifier(20).fit(*train).score(*test)
    assert 0.5 < expected < 0.95
    assert scores(train, test, 3, KEY, steps=1)["knn"] == pytest.approx(expected)
    few = Encoded(*(x[:7] for x in train))
    expected = np.mean(test.labels == np.bincount(few.labels).argmax())
    assert scores(few, test, 3, KEY, steps=1)["knn"] == pytest.approx(expected)


def test_only_hidden_units_separate_exclusive_or():
    x = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    whole = Encoded(x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))
    train, test = (Encoded(*(x[part] for x in whole)) for part in (slice(400), slice(400, 600)))
    found = scores(train, test, 2, KEY, steps=STEPS)
    assert found["linear"] < 0.7
    assert found["mlp"] > 0.9


def test_the_units_of_the_features_do_not_matter_and_equal_keys_give_equal_results():
    train, test = draw(0, 200, spread=0.5), draw(1, 200, spread=0.5)
    logits = [
        np.asarray(probes._probe(*train, test.features, key, 3, (), STEPS)) for key in (KEY, KEY)
    ]
    np.testing.assert_array_equal(*logits)
    units = np.array([[64, 0.5, 2]], np.float32)
    moved = [x._replace(features=units * x.features) for x in (train, test)]
    other = probes._probe(*moved[0], moved[1].features, KEY, 3, (), STEPS)
    np.testing.assert_allclose(logits[0], other, rtol=1e-3, atol=1e-3)


def test_constant_features_give_the_share_of_one_class():
    train, test = (
        x._replace(features=np.ones((200, 4), np.float32)) for x in map(draw, (0, 1), (200, 200))
    )
    assert probe(train, test, 3, KEY, steps=9) in np.bincount(test.labels) / 200


def test_features_that_are_not_finite_give_no_accuracy():
    train, test = draw(0, 40), draw(1, 40)
    for bad in (np.nan, np.inf):
        train.features[3, 1] = bad
        assert np.isnan(list(scores(train, test, 3, KEY, steps=1).values())).all()


def test_encode_sees_every_example_once_in_order():
    split = load_images("digits").test
    encoder = jax.jit(lambda batch: jnp.stack(2 * [batch["image"] / 16.0], axis=1))
    encoded = encode(encoder, split)
    batch = split[np.arange(360)]
    pixels = batch["image"].reshape(360, -1) / 16
    np.testing.assert_allclose(encoded.features, np.tile(pixels, 2), rtol=1e-6)
    np.testing.assert_array_equal(encoded.labels, batch["label"])
    assert encoded.features.dtype == np.float32
    assert encoder._cache_size() == 1


def test_encode_widens_half_precision():
    split = Arrays({"x": np.arange(3.0, dtype=np.float32), "label": np.arange(3)})
    encoded = encode(lambda batch: jnp.asarray(batch["x"], jnp.bfloat16)[:, None], split)
    assert (encoded.features.dtype, encoded.features.shape) == (np.float32, (3, 1))
