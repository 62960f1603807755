"""The knobs every experiment has, and the way from the command line to `main`."""

import contextlib
import errno
import io
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import tyro

from experiments.lib import devices
from experiments.lib.errors import UserError

C = TypeVar("C", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig:
    """What every run has: where, how long, on what, how often.

    An experiment derives its own frozen dataclass from it, adds its knobs and overrides defaults.

    Raises:
      UserError: a value is out of its range.
    """

    workdir: str = ""
    """Folder of this run; empty: runs/NAME-DATA. The same command continues the run in it."""
    steps: int = 1000
    """Training steps."""
    seed: int = 0
    """Random seed of the initialisation, the noise and the order of the data."""
    seeds: int = 1
    """How many models to train at once, with the seeds seed, seed + 1, ... on the same batches."""
    data: str = "digits"
    """Data set."""
    data_dir: str = ""
    """Where the data set lies, if it is not embedded in a dependency."""
    batch_size: int = 64
    """Examples per step, over all devices of all processes."""
    log_every: int = 50
    """Steps between two lines of training metrics."""
    eval_every: int = 500
    """Steps between two evaluations on the test split, with pictures; 0: only at the end."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; 0: only at the end."""

    # Least value of a knob; an experiment adds its own.
    LEAST: ClassVar[dict[str, Any]] = {
        "steps": 1,
        "seed": 0,
        "seeds": 1,
        "batch_size": 1,
        "log_every": 1,
        "eval_every": 0,
        "checkpoint_every": 0,
    }

    def __post_init__(self):
        for name, least in self.LEAST.items():
            value = getattr(self, name)
            if not least <= value < math.inf:  # NaN fails too
                kind = "a number" if isinstance(value, float) else "an integer"
                raise UserError(f"{flag(name)} {value}: expected {kind} of at least {least}")
        if self.seed + self.seeds > 2**32:
            raise UserError(f"--seed {self.seed}: expected seeds below {2**32}")


def flag(field: str) -> str:
    """The name on the command line of a field of a config."""
    return "--" + field.replace("_", "-")


def launch(main: Callable[[C], object], config_type: type[C]) -> None:
    """Runs an experiment from the command line: parses it, joins the cluster, calls `main`.

    A `UserError` ends the program with one line on stderr and the exit code 2.

    Args:
      main: the experiment, a function of its config.
      config_type: the dataclass of the config; its fields are the flags.
    """
    try:
        config = _parse(config_type, sys.modules[main.__module__].__doc__)
        devices.keep_memory()
        devices.start()
        main(config)
    except UserError as error:
        _end(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _end("no space left on the disk; with more of it the same command continues the run")


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _parse(config_type: type[C], description: str | None) -> C:
    started = sys.modules["__main__"].__spec__
    program = f"python -m {started.name}" if started else None
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config_type, prog=program, description=description)
    except SystemExit as end:
        if end.code == 0:  # --help
            raise
    # tyro draws a box: a title, then paragraphs between rules, of which the first says what is
    # wrong and the others repeat the help.
    lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()[1:]]
    text = itertools.dropwhile(_is_rule, lines)
    wrong = " ".join(itertools.takewhile(lambda line: not _is_rule(line), text))
    wrong = wrong.rstrip(".") or "the flags do not fit"
    raise UserError(f"{wrong} (--help lists the flags)")


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯")
