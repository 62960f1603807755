"""The command line of a config: its flags, their help, and faults that are one line."""

import contextlib
import dataclasses
import io
import itertools
import sys
from typing import Any

import tyro

from experiments.lib.config import flag
from experiments.lib.errors import UserError, nearest

# What other programs call these flags.
_ELSEWHERE = {
    "batch": "batch-size",
    "bs": "batch-size",
    "dataset": "data",
    "epochs": "steps",
    "iterations": "steps",
    "lr": "learning-rate",
    "num-steps": "steps",
    "out": "workdir",
    "output": "workdir",
    "output-dir": "workdir",
    "save-every": "checkpoint-every",
    "wd": "weight-decay",
}


def parse(config_type: type, program: str | None, text: str | None) -> Any:
    """The config of the command line; --help shows the flags, then the text as it is.

    Args:
      config_type: a dataclass; its fields are the flags.
      program: how the program was started, for the help.
      text: docstring of the program.

    Raises:
      UserError: a flag or a value does not fit.
      SystemExit: code 0, after --help.
    """
    first, _, rest = (text or "").partition("\n")
    _check_names(config_type, sys.argv[1:])
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config_type, prog=program, description=first, registry=_REGISTRY)
    except SystemExit as end:
        if end.code == 0:  # --help
            if rest.strip():
                print(rest.rstrip())
            raise
    raise UserError(f"{_fault(complaint.getvalue())} (--help lists the flags)")


def _check_names(config_type: type, arguments: list[str]) -> None:
    fields = {flag(field.name): field.default for field in dataclasses.fields(config_type)}
    switches = {f"--no-{name[2:]}" for name, default in fields.items() if isinstance(default, bool)}
    known, plain = {"--help", *fields, *switches}, [name[2:] for name in fields]
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if len(name) > 2 and name.startswith("--") and name not in known:
            usual = _ELSEWHERE.get(name[2:])
            # Without the dashes, which all names share.
            meant = usual if usual in plain else nearest(name[2:], plain)
            hint = f"; did you mean --{meant}?" if meant else ""
            raise UserError(f"{name}: no such flag{hint} (--help lists the flags)")


def _fault(complaint: str) -> str:
    """What is wrong, in tyro's words.

    tyro draws a box: a title, then paragraphs between rules, of which the first says what is wrong
    and the others repeat the help.
    """
    lines = [line.strip("│ ") for line in complaint.splitlines()[1:]]
    text = itertools.dropwhile(_is_rule, lines)
    wrong = " ".join(itertools.takewhile(lambda line: not _is_rule(line), text))
    return wrong.removeprefix("Error parsing ").rstrip(".") or "the flags do not fit"


def _is_rule(line: str) -> bool:
    return not line.strip("─-╰╯")


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _integers(info: tyro.constructors.PrimitiveTypeInfo):
    """Integers may be written as 1e6."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda given: _integer(given[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError, OverflowError):
            if float(text).is_integer():
                return int(float(text))
        raise ValueError(f"{text} is no integer; expected one, such as 1000 or 1e3") from None
