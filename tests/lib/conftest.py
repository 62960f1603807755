"""The toy experiment, in this process and as a program."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

_TOY = pathlib.Path(__file__).with_name("toy.py")


@pytest.fixture(scope="session")
def toy():
    """The module of the toy experiment."""
    spec = importlib.util.spec_from_file_location("toy", _TOY)
    assert spec
    assert spec.loader
    module = sys.modules["toy"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start():
    """Starts the toy experiment as a program: start(*flags, **environment) -> Popen."""

    def start(*flags, **environment) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(_TOY), *map(str, flags)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def outcome():
    """outcome(folder) -> what a run left: every line logged, and the bits of its final state."""

    def outcome(folder) -> tuple:
        folder = pathlib.Path(folder)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((folder / "summary.json").read_text())
        proof = folder / "checkpoints" / str(summary["steps"]) / "proof" / "metadata"
        return lines, summary["metrics"], json.loads(proof.read_text())["prints"]

    return outcome


@pytest.fixture(scope="session")
def whole(toy, tmp_path_factory):
    """The folder of a run of the toy that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    toy.main(toy.Config(workdir=str(folder)))
    return folder
