"""The tasks do not overlap, and each way of fine-tuning moves the layers that it should."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import layerwise_learning_rate as experiment
from experiments.lib.errors import UserError
from experiments.lib.sources.images import load_images

CONFIG = dataclasses.replace(experiment.SMOKE, layers=2, shift=0, noise=0.0)
DATA = load_images("digits")


def rows(columns):
    return [image.tobytes() for image in columns["image"]]


def test_no_image_is_in_two_tasks_and_each_class_has_its_shots():
    source, target = experiment.tasks(dataclasses.replace(CONFIG, held_out=True), DATA)
    parts = [rows(p.columns) for p in (source, target.train, target.test)]
    assert sorted(itertools.chain(*parts)) == sorted(rows(DATA.train.columns))
    np.testing.assert_array_equal(np.bincount(target.train.columns["label"]), [CONFIG.shots] * 10)
    _, judged = experiment.tasks(CONFIG, DATA)
    assert rows(judged.test.columns) == rows(DATA.test.columns)


def test_the_change_is_of_images_to_adapt_to_and_to_judge_alone():
    changed = dataclasses.replace(CONFIG, shift=1)
    (source, plain), (same, moved) = (experiment.tasks(c, DATA) for c in (CONFIG, changed))
    assert rows(source.columns) == rows(same.columns)
    for split in ("train", "test"):
        before, after = (getattr(t, split).columns["image"] for t in (plain, moved))
        np.testing.assert_array_equal(after[:, :, 1:], before[:, :, :-1])
    noisy = experiment.tasks(dataclasses.replace(CONFIG, noise=0.1), DATA)[1].test.columns["image"]
    gap = (noisy - plain.test.columns["image"].astype(float)) / 16
    inside = (plain.test.columns["image"] > 4) & (plain.test.columns["image"] < 12)
    assert gap[inside].std() == pytest.approx(0.1, rel=0.1)


def test_each_way_moves_what_it_should():
    source, target = experiment.tasks(CONFIG, DATA)
    ways = experiment.optimizers(CONFIG)
    method = experiment.fine_tuned(CONFIG, source, target, ways)
    batch = jax.tree.map(jnp.asarray, target.train[np.arange(16)])
    state = method.init(jax.random.key(0), batch)
    start = state.start
    state, _ = method.step(state, batch, jax.random.key(1))

    def moved(name):
        (layers,) = state.ways[name].params["params"].values()
        (old,) = start["params"].values()
        gaps = {k: jnp.abs(layers[k]["kernel"] - old[k]["kernel"]).max() for k in sorted(old)}
        return np.array(list(gaps.values()))

    np.testing.assert_array_equal(moved("as_it_is"), 0)
    np.testing.assert_allclose(moved("head"), [0, 0, CONFIG.head_rate], rtol=1e-3)
    decay = CONFIG.decay_rate * CONFIG.decay ** np.array([2, 1, 0])
    np.testing.assert_allclose(moved("decay"), decay, rtol=1e-3)
    growth = CONFIG.growth_rate * CONFIG.growth ** np.array([2, 1, 0])
    np.testing.assert_allclose(moved("growth"), growth, rtol=1e-3)
    np.testing.assert_allclose(moved("uniform"), CONFIG.learning_rate, rtol=1e-3)
    assert moved("scratch").min() > 0.1


def test_more_shots_than_there_are():
    with pytest.raises(UserError, match="--shots 1000: digits has fewer of some class"):
        experiment.tasks(dataclasses.replace(CONFIG, shots=1000), DATA)
