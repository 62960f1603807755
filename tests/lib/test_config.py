"""From the command line to `main`: every fault is one line and exit code 2."""

import dataclasses
import errno
import sys

import pytest

from experiments.lib.config import RunConfig, launch
from experiments.lib.errors import UserError


def _launch(monkeypatch, main, config_type, *flags):
    monkeypatch.setattr(sys, "argv", ["program", *flags])
    launch(main, config_type)


def test_flags_become_the_config(monkeypatch, toy):
    seen = []

    def main(config):
        seen.append(config)

    _launch(monkeypatch, main, toy.Config, "--rate", "0.5", "--batch-size", "8", "--seed", "3")
    assert seen == [toy.Config(rate=0.5, batch_size=8, seed=3)]


def test_help_shows_every_knob_and_the_docstring(monkeypatch, toy, capsys):
    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, toy.main, toy.Config, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "A method of milliseconds" in shown
    for name in (field.name for field in dataclasses.fields(toy.Config)):
        assert "--" + name.replace("_", "-") in shown
    assert "Learning rate." in shown
    assert "Folder of this run" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stepz", "3"], "Unrecognized options: --stepz, 3 (--help"),
        (["--steps", "many"], "--steps: invalid literal for int() with base 10: 'many' (--help"),
        (["--steps"], "Missing value for argument '--steps'"),
        (["--steps", "0"], "--steps 0: expected an integer of at least 1"),
        (["--batch-size", "-8"], "--batch-size -8: expected an integer of at least 1"),
        (["--seeds", "0"], "--seeds 0: expected an integer of at least 1"),
        (["--log-every", "0"], "--log-every 0: expected an integer of at least 1"),
        (["--eval-every", "-1"], "--eval-every -1: expected an integer of at least 0"),
        (["--checkpoint-every", "-1"], "--checkpoint-every -1: expected an integer of at least 0"),
        (["--seed", "-1"], "--seed -1: expected an integer of at least 0"),
        (["--seed", str(2**32)], f"--seed {2**32}: expected seeds below {2**32}"),
        (["--data", "mnist"], "--data mnist: needs --data-dir"),
        (["--data", "no_such_set", "--data-dir", "/nowhere"], "--data no_such_set: no /nowhere/"),
        (["--workdir", "/dev/null/run"], "--workdir /dev/null/run: Not a directory"),
    ],
)
def test_a_fault_is_one_line(monkeypatch, toy, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, toy.main, toy.Config, *flags)
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def main(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _launch(monkeypatch, main, RunConfig)


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def main(config):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, main, RunConfig)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: no space left on the disk")


def test_a_config_made_in_python_is_checked_too():
    with pytest.raises(UserError, match="--steps 0"):
        RunConfig(steps=0)
