"""Every experiment, found by itself: it runs, resumes exactly, and does not mind the devices."""

import ast
import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import experiments
from experiments.lib import devices, loop
from experiments.lib.logs import Logs

FOLDER = pathlib.Path(experiments.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


@pytest.fixture(params=NAMES)
def module(request):
    return importlib.import_module(f"experiments.{request.param}")


def run(module, folder, **changes):
    return module.main(dataclasses.replace(module.SMOKE, workdir=str(folder), **changes))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_after(monkeypatch, step):
    write = Logs.write

    def write_and_interrupt(self, kind, done, metrics):
        write(self, kind, done, metrics)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Logs, "write", write_and_interrupt)


@pytest.mark.slow
def test_runs_resumes_and_does_not_mind_the_devices(module, tmp_path, monkeypatch):
    traces = []

    def counting_train(name, config, *, step, **rest):
        def counted(*args):
            traces.append(name)
            return step(*args)

        return loop.train(name, config, step=counted, **rest)

    monkeypatch.setattr(module, "train", counting_train)
    whole = run(module, tmp_path / "whole")
    assert len(traces) == 1, "the step was traced more than once"
    assert whole["metrics"], "nothing was measured"
    assert all(np.isfinite(value) for value in whole["metrics"].values())
    assert list((tmp_path / "whole" / "pictures").glob("*.png"))

    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            run(module, tmp_path / "parts")
    assert stop.value.code == 0
    assert not (tmp_path / "parts" / "summary.json").exists()
    parts = run(module, tmp_path / "parts")
    assert parts["metrics"] == whole["metrics"]
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")

    assert len(jax.devices()) == 8
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]), devices.make_mesh().axis_names)
    monkeypatch.setattr(devices, "make_mesh", lambda: one)
    alone = run(module, tmp_path / "alone")
    for name, value in whole["metrics"].items():
        assert alone["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_is_listed_with_its_first_line(module):
    first = ast.get_docstring(ast.parse(pathlib.Path(module.__file__).read_text())).split("\n")[0]
    shown = subprocess.run(
        [sys.executable, "-m", "experiments"], capture_output=True, text=True, check=True
    ).stdout
    assert f"{module.__name__.split('.')[-1]} " in shown
    assert first in shown


def test_every_flag_explains_itself(module):
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    body = config.body[1:]
    for field, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            explained = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            assert explained, f"--{field.target.id} has no line of explanation"
