"""The knobs that every experiment has, and the rules that stand on a knob."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

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


class Changeable(NamedTuple):
    """The same run may be continued with another value."""


CHANGEABLE = Changeable()


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
            checks = [] if value is None else _checks(rules)
            wrong = [expected for holds, expected in checks if not holds(value)]
            if wrong:
                kind = "a number" if isinstance(value, float) else "an integer"
                raise UserError(f"{flag(name)} {value}: expected {kind} {' and '.join(wrong)}")


@dataclass(frozen=True)
class RunConfig(Checked):
    """The knobs of every run: where, how long, how often.

    An experiment derives its own frozen dataclass from it, adds its knobs and overrides defaults.

    Raises:
      UserError: a value is out of its range.
    """

    workdir: Annotated[str, CHANGEABLE] = ""
    """Folder of this run; empty: runs/NAME-DATA. The same command continues the run in it."""
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

    def __post_init__(self):
        super().__post_init__()
        if self.seed + self.seeds > 2**32:
            raise UserError(f"--seed {self.seed}: expected seeds below {2**32}")


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
    """Field -> its rules; of two rules of one kind, the subclass's counts."""
    found: dict[str, dict[type, Any]] = {}
    for owner in reversed(config_type.__mro__):
        for name, annotation in inspect.get_annotations(owner, eval_str=True).items():
            own = {type(rule): rule for rule in getattr(annotation, "__metadata__", ())}
            found[name] = {**found.get(name, {}), **own}
    return {name: list(rules.values()) for name, rules in found.items()}


def flag(field: str) -> str:
    """The name on the command line of a field of a config."""
    return "--" + field.replace("_", "-")
