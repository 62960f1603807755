"""The options that every experiment has, and the rules that their values must meet."""

import dataclasses
import inspect
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import tyro

from experiments.lib.errors import UserError


class AtLeast(NamedTuple):
    """The value must be finite and >= bound."""

    bound: float


class Above(NamedTuple):
    """The value must be finite and > bound."""

    bound: float


class Below(NamedTuple):
    """The value must be finite and < bound."""

    bound: float


class Changeable:
    """The same run may be continued with another value."""


class Folder:
    """The value is a path on a mounted file system; a leading ~ stands for the user's home."""


CHANGEABLE = Changeable()
FOLDER = Folder()

_FLAGS = {"init_from": "from"}  # fields whose flag has another name, one that Python reserves


@dataclass(frozen=True)
class Checked:
    """A dataclass whose fields carry rules: `Annotated[int, AtLeast(1), CHANGEABLE]`.

    A subclass that overrides a default inherits the rules.

    Raises:
      UserError: a value is out of its range.
    """

    def __post_init__(self):
        for name, rules in rules_of(type(self)).items():
            value = getattr(self, name)
            if FOLDER in rules:
                object.__setattr__(self, name, _expanded(name, value))
            checks = [] if value is None else _checks(rules)
            wrong = [expected for holds, expected in checks if not holds(value)]
            if wrong:
                whole = isinstance(getattr(type(self), name, value), int)  # by its default
                kind = "an integer" if whole else "a number"
                raise UserError(f"{flag(name)} {value}: expected {kind} {' and '.join(wrong)}")


@dataclass(frozen=True)
class RunConfig(Checked):
    """The options of every run: its folder, its length, how often it logs, tests and saves.

    An experiment derives its own frozen dataclass from it, adds its options and overrides defaults.

    Raises:
      UserError: a value is out of its range.
    """

    workdir: Annotated[str, CHANGEABLE, FOLDER] = ""
    """Folder of this run; empty: runs/NAME-DATA. The same command continues the run in it."""
    init_from: Annotated[str, FOLDER, tyro.conf.arg(name=_FLAGS["init_from"])] = ""
    """Folder of another run, whose newest state (optimizer and all) this run begins with."""
    override: Annotated[str, CHANGEABLE] = ""
    """Flags, such as rate,batch_size, that may differ from those of the run in the folder."""
    steps: Annotated[int, AtLeast(1), CHANGEABLE] = 1000
    """Training steps."""
    seed: Annotated[int, AtLeast(0)] = 0
    """Random seed of the initialisation, the noise and the order of the data."""
    seeds: Annotated[int, AtLeast(1)] = 1
    """Number of models to train at once, with the seeds seed, seed + 1, ... on the same batches."""
    batch_size: Annotated[int, AtLeast(1)] = 64
    """Examples per step, over all devices of all processes."""
    fsdp: Annotated[int, AtLeast(1), CHANGEABLE] = 1
    """Number of devices among which each large array of the state is split."""
    log_every: Annotated[int, AtLeast(1), CHANGEABLE] = 50
    """Steps between two lines of training metrics."""
    eval_every: Annotated[int, AtLeast(0), CHANGEABLE] = 500
    """Steps between two evaluations on the test split, with pictures; 0: only at the end."""
    checkpoint_every: Annotated[int, AtLeast(0), CHANGEABLE] = 500
    """Steps between two checkpoints; 0: only at the end."""
    keep_best: Annotated[str, CHANGEABLE] = ""
    """min:METRIC or max:METRIC of the test: keeps the best checkpoint beside the last three."""

    def __post_init__(self):
        super().__post_init__()
        knobs = {field.name for field in dataclasses.fields(self)}
        if self.seed + self.seeds > 2**32:
            raise UserError(f"--seed {self.seed}: expected seeds below {2**32}")
        if unknown := overridden(self) - knobs:
            raise UserError(
                f"--override {self.override}: no flag is called {', '.join(sorted(unknown))};"
                " expected names separated by commas, such as steps,batch_size"
            )
        if self.keep_best and not re.fullmatch(r"(min|max):\S+", self.keep_best):
            raise UserError(f"--keep-best {self.keep_best}: expected min:METRIC or max:METRIC")


def overridden(config: RunConfig) -> set[str]:
    """The fields that `override` names, as fields or as flags."""
    names = (name.strip().removeprefix("--") for name in config.override.split(","))
    fields = {flag: field for field, flag in _FLAGS.items()}
    return {fields.get(name, name.replace("-", "_")) for name in names if name}


def _expanded(field: str, value: str) -> str:
    if "://" in value:
        raise UserError(f"{flag(field)} {value}: expected a folder; mount the bucket as one")
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise UserError(f"{flag(field)} {value}: no such user; expected a folder")
    return path


def _checks(rules) -> Iterator[tuple]:
    for rule in rules:  # comparisons with NaN are false, so NaN breaks every rule
        match rule:
            case AtLeast(bound):
                yield lambda x, b=bound: b <= x < math.inf, f"of at least {bound}"
            case Above(bound):
                yield lambda x, b=bound: b < x < math.inf, f"above {bound}"
            case Below(bound):
                yield lambda x, b=bound: -math.inf < x < b, f"below {bound}"


def rules_of(config_type: type[Checked]) -> dict[str, list[Any]]:
    """The rules of each field; a subclass's rule replaces an inherited one of the same type."""
    found: dict[str, dict[type, Any]] = {}
    for owner in reversed(config_type.__mro__):
        for name, annotation in inspect.get_annotations(owner, eval_str=True).items():
            own = {type(rule): rule for rule in getattr(annotation, "__metadata__", ())}
            found[name] = {**found.get(name, {}), **own}
    return {name: list(rules.values()) for name, rules in found.items()}


def flag(field: str) -> str:
    """The command-line flag of a field."""
    return "--" + _FLAGS.get(field, field).replace("_", "-")
