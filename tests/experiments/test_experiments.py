"""Every experiment, found by itself: it runs, resumes exactly, and does not mind the devices."""

import ast
import dataclasses
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import experiments
from experiments.lib import devices, loop, report, runs
from experiments.lib.batches import form
from experiments.lib.config import Above, AtLeast, rules_of
from experiments.lib.errors import UserError
from experiments.lib.logs import Logs
from experiments.lib.programs import compile_method, judge_keys

FOLDER = pathlib.Path(experiments.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("[!_]*.py") if "launch(build, Config)" in p.read_text())


@pytest.fixture(params=NAMES)
def module(request):
    return importlib.import_module(f"experiments.{request.param}")


def run(module, folder, **changes):
    config = dataclasses.replace(module.SMOKE, workdir=str(folder), **changes)
    data, method = module.build(config)
    traces = []

    def counted(*args):
        traces.append(args)
        return method.step(*args)

    summary = loop.train(name_of(module), config, data, method._replace(step=counted))
    assert len(traces) == 1, "the step was traced more than once"
    unexplained = [n for n in summary["metrics"] if not report.meaning(n, method.meanings)]
    assert not unexplained, "METRICS has no line for a final number"
    return summary


def loads_and_samples(module, folder, summary):
    loaded = runs.load(folder)
    assert dataclasses.replace(loaded.config, workdir="") == module.SMOKE
    assert loaded.step == module.SMOKE.steps
    method = loaded.method
    if method.judge and module.SMOKE.seeds == 1:
        for name, value in method.judge(loaded.state, judge_keys(loaded.config)[0]).items():
            assert summary["metrics"][name] == pytest.approx(float(value), rel=1e-5), name
    if method.sample:
        samples = loaded.sample(jax.random.key(0), 3)
        one = loaded.sample(jax.random.key(0), 1)
        for drawn, alone in zip(jax.tree.leaves(samples), jax.tree.leaves(one), strict=True):
            assert drawn.shape == (3, *alone.shape[1:])
            assert np.isfinite(drawn).all()
    if method.log_prob:
        x = loaded.data.test[np.arange(4)]["image"]
        log_prob = loaded.log_prob(x)
        assert log_prob.shape == (4,)
        assert np.isfinite(log_prob).all()


def name_of(module):
    return module.__name__.split(".")[-1]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def fingerprints(folder):
    """Of every leaf of the last state: networks, averages, statistics, optimizers, counts."""
    last = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    proof = json.loads((last / "proof" / "metadata").read_text())
    assert len(proof["prints"]) == len(proof["names"]) > 0
    return proof["names"], proof["prints"]


def interrupt_after(monkeypatch, step):
    write = Logs.write

    def write_and_interrupt(self, kind, done, metrics):
        write(self, kind, done, metrics)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Logs, "write", write_and_interrupt)


@pytest.mark.slow
def test_runs_resumes_and_does_not_mind_the_devices(module, tmp_path, monkeypatch, complete_figure):
    monkeypatch.setattr(module, "figure", complete_figure, raising=False)
    whole = run(module, tmp_path / "whole")
    assert whole["metrics"], "nothing was measured"
    assert all(np.isfinite(value) for value in whole["metrics"].values())
    assert list((tmp_path / "whole" / "pictures").glob("*.png"))

    loads_and_samples(module, tmp_path / "whole", whole)

    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            run(module, tmp_path / "parts")
    assert stop.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "parts" / "summary.json").exists()
    parts = run(module, tmp_path / "parts")
    assert parts["metrics"] == whole["metrics"]
    assert fingerprints(tmp_path / "parts") == fingerprints(tmp_path / "whole")
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")

    assert len(jax.devices()) == 8
    # Four groups of two devices that share the state, then one device.
    monkeypatch.setattr(devices, "_LARGE", 2)
    shared = run(module, tmp_path / "shared", fsdp=2)
    one = devices.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(devices, "make_mesh", lambda fsdp: one)
    alone = run(module, tmp_path / "alone")
    for name, value in whole["metrics"].items():
        assert shared["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
        assert alone["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.fixture(scope="module")
def listed():
    command = [sys.executable, "-m", "experiments"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_is_listed_with_its_first_line(module, listed):
    first = ast.get_docstring(ast.parse(pathlib.Path(module.__file__).read_text())).split("\n")[0]
    assert f"{module.__name__.split('.')[-1]} " in listed
    assert first in listed


def test_every_number_has_a_bound_that_is_an_error_of_one_line(module):
    rules = rules_of(module.Config)
    numbers = {f.name for f in dataclasses.fields(module.Config) if _is_number(f)}
    bounds = {n: [r for r in rules[n] if isinstance(r, AtLeast | Above)] for n in numbers}
    assert all(bounds.values()), f"no bound: {[n for n, found in bounds.items() if not found]}"
    for name, (rule, *_) in bounds.items():
        for value in (rule.bound - (1 if isinstance(rule, AtLeast) else 0), float("nan")):
            with pytest.raises(UserError) as error:
                dataclasses.replace(module.SMOKE, **{name: value})
            assert "\n" not in str(error.value)
            assert f"--{name.replace('_', '-')} {value}" in str(error.value)


def _is_number(field):
    return isinstance(field.default, int | float) and not isinstance(field.default, bool)


@pytest.mark.slow
def test_lowers_for_tpu_and_cuda(module):
    mesh = devices.make_mesh(fsdp=2)
    data, method = module.build(module.SMOKE)
    size = module.SMOKE.batch_size * method.batches_per_step
    batch, number = form(data.train, size), jax.ShapeDtypeStruct((), np.uint32)
    first = form(data.train, method.init_batch or size)
    programs = compile_method(module.SMOKE, mesh, method, first)
    traced = [programs.update.trace(programs.state, batch, number)]
    if method.evaluate:
        test = form(data.test, size) | {"valid": jax.ShapeDtypeStruct((size,), bool)}
        traced.append(programs.measure.trace(programs.state, test, number))
    for program in traced:
        for platform in ("tpu", "cuda"):
            assert program.lower(lowering_platforms=(platform,)).as_text()


def test_docstring_is_short_and_has_paper_command_number_and_minutes(module):
    lines = module.__doc__.strip().splitlines()
    assert len(lines) <= 12
    assert "arXiv" in module.__doc__
    # The command, its flags, and after a gap the number to expect and the minutes.
    expected = rf" +python -m experiments\.{name_of(module)}( --\S+( \w+)?)*  +.*\d.*, [\d.]+ min"
    assert any(re.fullmatch(expected, line) for line in lines)


def test_every_flag_explains_itself(module):
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
    body = config.body[1:]
    for field, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            explained = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            assert explained, f"--{field.target.id} has no line of explanation"
