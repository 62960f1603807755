"""The README's Python runs as it stands."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from experiments import glow
from experiments.lib.loop import train

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_pure_function():
    space = {}
    exec(BLOCKS[0], space)
    assert space["bits"].shape == (16,)
    assert np.isfinite(space["bits"]).all()
    assert space["x"].shape == (4, 8, 8, 1)


@pytest.mark.slow
def test_the_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(glow.SMOKE, eval_every=0)
    train("glow", config, *glow.build(config))
    space = {}
    exec(BLOCKS[1], space)
    assert (space["images"].shape, space["images"].dtype) == ((16, 8, 8, 1), np.uint8)
    assert space["nats"].shape == (16,)
    assert np.isfinite(space["nats"]).all()


def test_it_has_no_other_python_and_is_short():
    assert len(BLOCKS) == 2
    assert len(README.splitlines()) < 120
