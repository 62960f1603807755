"""Experiments on pictures of one's own: they run, or one line says what is missing."""

import dataclasses
import importlib

import numpy as np
import pytest
from PIL import Image

from experiments import gan
from experiments.lib import loop
from experiments.lib.errors import UserError
from experiments.methods import judge


@pytest.fixture
def photos(tmp_path):
    """photos(*names, width, height, grey): the folder with pictures of noise of these names."""

    def photos(*names, width=16, height=12, grey=False):
        for seed, name in enumerate(names):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (height, width) if grey else (height, width, 3)
            noise = np.random.default_rng(seed).integers(0, 256, shape)
            Image.fromarray(noise.astype(np.uint8)).save(path)
        return str(tmp_path / "photos")

    return photos


def _config(name, folder, **changes):
    module = importlib.import_module(f"experiments.{name}")
    config = dataclasses.replace(module.SMOKE, data="folder", data_dir=folder, **changes)
    return module, config


FORTY = [f"{number:02d}.png" for number in range(40)]
OF_CLASSES = [f"{kind}/{number}.png" for kind in ("cat", "dog", "emu") for number in range(14)]


def _run(name, folder, tmp_path, **changes):
    module, config = _config(name, folder, workdir=str(tmp_path / "run"), **changes)
    metrics = loop.train(name, config, *module.build(config))["metrics"]
    assert metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    return metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [("glow", {}), ("realnvp", {"size": 8}), ("nice", {"size": 6}), ("gan", {})],
)
def test_photos_without_labels(photos, tmp_path, name, changes):
    _run(name, photos(*FORTY), tmp_path, **changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("orthogonality", {}),
        ("smooth_metrics", {}),
        ("soft_batch", {}),
        ("layerwise_learning_rate", {"shots": 2}),
        ("gan", {"conditional": True}),
    ],
)
def test_photos_of_three_classes(photos, tmp_path, name, changes):
    _run(name, photos(*OF_CLASSES), tmp_path, **changes)


@pytest.mark.parametrize(
    ("name", "names", "form", "changes", "message"),
    [
        ("glow", FORTY, {"width": 18}, {}, "--levels 2: .* divisible by 4; --size N crops and res"),
        ("nice", FORTY, {}, {"size": 5}, r"has images \(5, 5, 3\); expected an even number of val"),
        ("gan", FORTY, {"width": 49}, {}, "--network dcgan: the images have 49x12 pix"),
        ("gan", FORTY, {"width": 7, "height": 7}, {}, "the images have 7x7 pixels; .* --size 32"),
        ("gan", FORTY, {"width": 49}, {"network": "residual"}, "--network residual: the images"),
        ("gan", FORTY[:3], {}, {}, "1 test images of 16x12 pixels; .* expected two or more"),
        ("gan", FORTY, {"width": 16, "height": 4}, {}, "test images of 16x4 pixels; .* 8x8"),
        ("gan", FORTY, {}, {"conditional": True}, "--conditional: expected a set with classes"),
        ("stacked_mnist", FORTY, {}, {}, "has 3 channels and no classes; expected grey"),
        ("stacked_mnist", OF_CLASSES, {"grey": True}, {}, "has 1 channels and 3 classes; expected"),
        ("orthogonality", FORTY, {}, {}, "--data folder: has no labels; expected a set with class"),
        ("layerwise_learning_rate", OF_CLASSES, {}, {"shots": 15}, "--shots 15: folder has fewer"),
    ],
)
def test_photos_that_do_not_fit(photos, name, names, form, changes, message):
    module, config = _config(name, photos(*names, **form), **changes)
    with pytest.raises(UserError, match=message) as error:
        module.build(config)
    assert "\n" not in str(error.value)


def test_few_labelled_images_are_judged_by_their_pixels(photos, capsys):
    _, config = _config("gan", photos(*OF_CLASSES))
    data, _ = gan.build(config)
    assert data.classes == 3
    assert not judge.by_features(data)
    assert "samples are judged by their pixels" in capsys.readouterr().err
