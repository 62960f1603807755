"""The faults that are shown to a user as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault the user can fix: a flag, a file, a folder. Exit code 2."""


class DivergedError(UserError):
    """The training left the finite numbers; the last good checkpoint is kept. Exit code 2."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message: the nearest of the names, or nothing where none is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
