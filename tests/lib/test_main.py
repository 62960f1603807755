"""The list of the experiments."""

import pathlib
import subprocess
import sys

import experiments


def test_every_experiment_is_listed_with_its_first_line():
    listed = subprocess.run(
        [sys.executable, "-m", "experiments"], check=True, capture_output=True, text=True
    ).stdout
    names = [path.stem for path in pathlib.Path(experiments.__file__).parent.glob("[!_]*.py")]
    rows = listed.splitlines()
    assert [row.split()[0] for row in rows[: len(names)]] == sorted(names)
    assert all(len(row.split()) > 3 for row in rows[: len(names)])
    assert "python -m experiments.NAME" in rows[-1]
