"""Draws samples from a trained run: an .npz file, and PNG sheets of images.

    python -m experiments.sample runs/glow-digits --count 1000 --out samples.npz

The file has one array, "samples" [count, ...]; for a run that compares several models, one array
per model. Sheets of 100 images lie beside the file: samples-0.png, samples-1.png, ...
"""

import io
import pathlib
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
import tyro

from experiments.lib import runs
from experiments.lib.config import AtLeast, Checked
from experiments.lib.launch import command
from experiments.lib.logs import notice
from experiments.lib.pictures import grid, save_png
from experiments.lib.workdir import write_atomic

_PER_SHEET = 100


@dataclass(frozen=True)
class Config(Checked):
    """What to draw."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""
    count: Annotated[int, AtLeast(1)] = 100
    """Number of samples."""
    out: pathlib.Path = pathlib.Path("samples.npz")
    """File to write."""
    step: int | None = None
    """Step of the checkpoint; by default the newest."""
    key: Annotated[int, AtLeast(0)] = 0
    """Seed of the samples."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Which model of a run with several --seeds."""
    sheets: Annotated[int, AtLeast(0)] = 1
    """Number of PNG sheets to write, of 100 images each."""


def main(config: Config) -> None:
    """Loads the run, draws, and writes the files."""
    run = runs.load(config.run, config.step, config.seed)
    samples = run.sample(jax.random.key(config.key), config.count)
    arrays = samples if isinstance(samples, dict) else {"samples": samples}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out, content.getvalue())
    notice(f"{config.count} samples of {run.name}, step {run.step}, in {config.out}")
    if "samples" in arrays and arrays["samples"].ndim == 4:
        images = arrays["samples"] / np.float32(run.data.levels - 1)
        for number in range(min(config.sheets, -(-len(images) // _PER_SHEET))):
            part = images[number * _PER_SHEET : (number + 1) * _PER_SHEET]
            save_png(
                config.out.with_name(f"{config.out.stem}-{number}.png"), grid(part, columns=10)
            )


if __name__ == "__main__":
    command(main, Config)
