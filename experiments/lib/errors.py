"""The errors that `launch` prints as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix: of a flag, a file or a folder. Exit code 2."""


class DivergedError(UserError):
    """A metric or the state is NaN or infinite; the last good checkpoint stays. Exit code 2."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that a user probably meant, for a message, or None."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Ends a message with "; did you mean NEAREST?", or with nothing if no name is near."""
    meant = nearest(name, names)
    return f"; did you mean {meant}?" if meant else ""
