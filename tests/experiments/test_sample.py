"""Samples of a trained run as files."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from experiments import gan_toy, nice, sample, soft_batch
from experiments.lib.errors import UserError
from experiments.lib.loop import train


def trained(module, folder):
    config = dataclasses.replace(module.SMOKE, workdir=str(folder), eval_every=0, steps=1)
    train(module.__name__.rpartition(".")[2], config, *module.build(config))
    return folder


def test_images_in_a_file_and_on_sheets(tmp_path):
    run, out = trained(nice, tmp_path / "run"), tmp_path / "new" / "drawn.npz"
    sample.main(sample.Config(run, count=120, out=out, sheets=2))
    with np.load(out) as file:
        (images,) = (file[name] for name in file.files)
    assert (images.shape, images.dtype) == ((120, 8, 8, 1), np.uint8)
    assert 0 < images.max() <= 16
    sizes = []
    for i in (0, 1):
        with Image.open(out.with_name(f"drawn-{i}.png")) as sheet:
            sizes.append(sheet.size)
    (width, ten_rows), (same_width, two_rows) = sizes
    assert (same_width, two_rows) == (width, ten_rows / 5)
    again = out.with_name("again.npz")
    sample.main(sample.Config(run, count=120, out=again, sheets=0))
    assert np.array_equal(np.load(again)["samples"], images)
    sample.main(sample.Config(run, count=120, out=again, sheets=0, key=1))
    assert not np.array_equal(np.load(again)["samples"], images)


def test_one_array_for_each_model_that_is_compared(tmp_path):
    run, out = trained(gan_toy, tmp_path / "run"), tmp_path / "drawn.npz"
    sample.main(sample.Config(run, count=3, out=out))
    with np.load(out) as file:
        shapes = {name: file[name].shape for name in file.files}
    assert shapes == dict.fromkeys(gan_toy.games(gan_toy.SMOKE), (3, 2))


def test_a_run_without_samples(tmp_path):
    run = trained(soft_batch, tmp_path / "run")
    with pytest.raises(UserError, match="soft_batch: has no samples; expected a generative exp"):
        sample.main(sample.Config(run, out=tmp_path / "drawn.npz"))
    assert not (tmp_path / "drawn.npz").exists()
