"""From the command line to a run: every fault is one line and exit code 2."""

import dataclasses
import errno
import re
import sys
from typing import Annotated

import pytest

from experiments.lib import launch, logs
from experiments.lib.config import (
    CHANGEABLE,
    Above,
    AtLeast,
    Below,
    RunConfig,
    flag,
    overridden,
    rules_of,
)
from experiments.lib.errors import UserError
from experiments.lib.sources.images import ImageConfig


def _launch(monkeypatch, build, config_type, *flags):
    monkeypatch.setattr(sys, "argv", ["program", *flags])
    launch.launch(build, config_type)


def test_flags_become_the_config(monkeypatch, toy):
    seen = []
    monkeypatch.setattr(launch, "train", lambda *arguments: seen.append(arguments))

    def build(config):
        return "data", config

    _launch(monkeypatch, build, toy.Config, "--rate", "0.5", "--batch_size", "8", "--steps=1e3")
    config = toy.Config(rate=0.5, batch_size=8, steps=1000)
    assert type(config.steps) is int
    assert seen == [("test_config", config, "data", config)]


def test_help_shows_every_knob_and_the_docstring(monkeypatch, toy, capsys):
    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, toy.build, toy.Config, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "A method of milliseconds" in shown.partition("--workdir")[0]
    # The rest of the docstring comes after the flags, as it is.
    assert shown.endswith("\n" + toy.__doc__.partition("\n")[2].rstrip() + "\n")
    for field in dataclasses.fields(toy.Config):
        assert re.search(rf"{flag(field.name)}[ ,]", shown)
    assert "Learning rate." in shown
    assert "Folder of this run" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stepz", "3"], "--stepz: no such flag; did you mean --steps? (--help lists the flags)"),
        (["--batch_sise=3"], "--batch-sise: no such flag; did you mean --batch-size? (--help"),
        (["--epochs", "3"], "--epochs: no such flag; did you mean --steps? (--help"),
        (["--wd", "3"], "--wd: no such flag (--help"),  # the toy has no --weight-decay
        (["--no-steps"], "--no-steps: no such flag; did you mean --steps? (--help"),
        (["--qqqq"], "--qqqq: no such flag (--help"),
        (["--steps", "many"], "error: --steps: many is no integer; expected one, such as 1000 or"),
        (["--steps", "1.5"], "--steps: 1.5 is no integer; expected one, such as 1000 or 1e3 (--h"),
        (["--steps", "nan"], "--steps: nan is no integer; expected one"),
        (["--steps", "inf"], "--steps: inf is no integer; expected one"),
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
        (["--data", "no_such_set"], "--data no_such_set: needs --data-dir"),
        (["--data", "folder", "--data-dir", "/nowhere"], "/nowhere: expected a folder of pictures"),
        (["--data", "mnist", "--data-dir", "/nowhere"], "--data mnist: no /nowhere/"),
        (["--workdir", "/dev/null/run"], "--workdir /dev/null/run: Not a directory"),
        (["--workdir", "gs://b/run"], "--workdir gs://b/run: expected a folder; mount the bucket"),
        (["--data-dir", "~nobody-here/x"], "--data-dir ~nobody-here/x: no such user; expected a"),
        (["--keep-best", "cfid"], "--keep-best cfid: expected min:METRIC or max:METRIC"),
        (["--override", "rate,hue"], "--override rate,hue: no flag is called hue; expected names"),
    ],
)
def test_a_fault_is_one_line(monkeypatch, toy, capsys, flags, message):
    monkeypatch.setattr(logs, "_PATIENCE", 600)
    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, toy.build, toy.Config, *flags)
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def build(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _launch(monkeypatch, build, RunConfig)


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def build(config):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as end:
        _launch(monkeypatch, build, RunConfig)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: no space left on the disk")


def test_a_config_made_in_python_is_checked_too():
    with pytest.raises(UserError, match="--steps 0"):
        RunConfig(steps=0)


@dataclasses.dataclass(frozen=True)
class Ruled(RunConfig):
    steps: int = 7
    share: Annotated[float, Above(0), Below(1)] = 0.5
    weight: Annotated[float | None, AtLeast(0)] = None
    seeds: Annotated[int, AtLeast(2)] = 2


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"steps": 0}, "--steps 0: expected an integer of at least 1"),
        ({"share": 0.0}, "--share 0.0: expected a number above 0"),
        ({"share": 1.0}, "--share 1.0: expected a number below 1"),
        ({"share": float("nan")}, "--share nan: expected a number above 0 and below 1"),
        ({"share": float("-inf")}, "--share -inf: expected a number above 0"),
        ({"weight": -1.0}, "--weight -1.0: expected a number of at least 0"),
        ({"weight": float("inf")}, "--weight inf: expected a number of at least 0"),
        ({"seeds": 1}, "--seeds 1: expected an integer of at least 2"),
    ],
)
def test_rules_are_inherited_and_may_be_replaced(knobs, message):
    with pytest.raises(UserError, match=message):
        Ruled(**knobs)
    assert Ruled(weight=0.0).weight == 0


def test_a_new_default_keeps_the_rules_of_the_knob():
    assert rules_of(Ruled)["steps"] == [AtLeast(1), CHANGEABLE]
    assert rules_of(Ruled)["seeds"] == [AtLeast(2)]


def test_a_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = ImageConfig(workdir="~/run", data_dir="~", init_from="a~b")
    assert (config.workdir, config.data_dir, config.init_from) == (
        "/home/ada/run", "/home/ada", "a~b",
    )  # fmt: skip


def test_overridden_flags_are_named_as_flags_or_fields():
    config = RunConfig(override="batch-size,--seed, init_from,from")
    assert overridden(config) == {"batch_size", "seed", "init_from"}
