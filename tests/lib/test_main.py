"""python -m experiments: the list, and a run by its name."""

import os
import pathlib
import subprocess
import sys

import experiments

FOLDER = pathlib.Path(experiments.__file__).parent


def _run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], check=False, text=True, stderr=subprocess.PIPE, **options
    )


def test_experiments_and_tools_are_listed_with_their_first_lines():
    rows = _run("-m", "experiments", stdout=subprocess.PIPE).stdout.splitlines()
    texts = {path.stem: path.read_text() for path in FOLDER.glob("[!_]*.py")}
    tools = sorted(name for name, text in texts.items() if "\ndef build(" not in text)
    names = ["Experiments:", *sorted(texts.keys() - tools), *(["Tools:"] if tools else []), *tools]
    assert [row.split()[0] for row in rows[: len(names)]] == names
    for row in rows[: len(names)]:
        name, _, line = row.strip().partition(" ")
        assert name.endswith(":") or texts[name].startswith(f'"""{line.strip()}')
    assert "python -m experiments NAME" in rows[-1]


def test_a_name_and_flags_run_that_experiment():
    done = _run("-m", "experiments", "nice", "--steps", "0")
    assert done.returncode == 2
    assert done.stderr == "error: --steps 0: expected an integer of at least 1\n"


def test_the_help_is_that_of_the_experiment():
    done = _run("-m", "experiments", "nice", "--help", stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m experiments.nice ")


def test_an_unknown_name_is_one_line_with_the_nearest_one():
    done = _run("-m", "experiments", "glwo")
    assert done.returncode == 2
    assert done.stderr == (
        "error: glwo: no such experiment; did you mean glow? (python -m experiments lists them)\n"
    )


def test_a_list_that_nobody_reads_ends_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    done = _run("-m", "experiments", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
