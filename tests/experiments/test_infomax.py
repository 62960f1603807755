"""The InfoMax experiment: neighbours, kept baselines, data without labels."""

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from experiments import infomax
from experiments.lib.errors import UserError
from experiments.lib.sources.images import ImageConfig
from experiments.methods.classification import State


def test_nearest_are_those_of_the_largest_cosine():
    rng = np.random.default_rng(0)
    asked, known = rng.standard_normal((4, 3)), rng.standard_normal((30, 3))
    expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(known).kneighbors(asked)[1]
    np.testing.assert_array_equal(infomax.nearest(asked, known, 5), expected)
    nothing = np.concatenate([known, np.zeros((1, 3))])
    np.testing.assert_array_equal(infomax.nearest(asked, nothing, 5), expected)


def test_data_without_labels_is_refused(monkeypatch):
    unlabelled = infomax.SMOKE.images()._replace(classes=0)
    monkeypatch.setattr(ImageConfig, "images", lambda self: unlabelled)
    with pytest.raises(UserError, match="--data digits: has no labels"):
        infomax.build(infomax.SMOKE)


def test_baselines_are_kept_and_depend_on_the_encoder(tmp_path, monkeypatch):
    config = dataclasses.replace(infomax.SMOKE, workdir=str(tmp_path / "run"))
    calls = []

    def scores(train, test, classes, key, steps):
        calls.append(train.features.shape)
        return dict.fromkeys(("knn", "linear", "mlp"), len(calls) / 100)

    monkeypatch.setattr(infomax.probes, "scores", scores)
    monkeypatch.setattr(infomax, "encoder", lambda config, data: split_in_two)
    state = State({"encoder": None}, None)

    def judged(config):
        return infomax.judgement(config, config.images())(state, None)

    first = judged(config)
    assert set(first) == set(infomax.METRICS)
    assert calls == [(100, 2), (100, 3), (100, 64), (100, 2), (100, 3)]
    again = judged(config)
    assert len(calls) == 7
    baselines = {name for name in first if not name.startswith(("code", "map"))}
    assert all(first[name] == again[name] for name in baselines)
    judged(dataclasses.replace(config, width=8))
    assert calls[7:] == [(100, 2), (100, 3), (100, 2), (100, 3)]


def split_in_two(params, split):
    labels = split[np.arange(len(split))]["label"]
    return {
        "code": np.zeros((len(labels), 2)),
        "map": np.zeros((len(labels), 3)),
        "label": labels,
    }
