"""The faults that are shown to a user as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault the user can fix: a flag, a file, a folder. Exit code 2."""


class DivergedError(UserError):
    """The training left the finite numbers; the last good checkpoint is kept. Exit code 2."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that a user probably meant, for a message, or None."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Ends a message with "; did you mean NEAREST?", or with nothing if no name is near."""
    meant = nearest(name, names)
    return f"; did you mean {meant}?" if meant else ""
