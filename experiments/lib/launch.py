"""From the command line to a run: parse the flags, join the cluster, build, train."""

import contextlib
import errno
import io
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from experiments.lib import devices, interrupts
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.loop import train

C = TypeVar("C", bound=RunConfig)


def launch(build: Callable[[C], tuple[Any, Any]], config_type: type[C]) -> None:
    """Runs the experiment whose file is the program.

    A `UserError` ends the program with one line on stderr and the exit code 2.

    Args:
      build: config -> (data set, `Method`).
      config_type: the dataclass of the config; its fields are the flags.
    """
    with interrupts.as_program():
        _run(build, config_type)


def _run(build: Callable[[C], tuple[Any, Any]], config_type: type[C]) -> None:
    module = sys.modules[build.__module__]
    name = pathlib.Path(str(module.__file__)).stem
    try:
        config = _parse(config_type, module.__doc__)
        devices.keep_memory()
        devices.start()
        train(name, config, *build(config))
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
