"""The errors that `launch` prints as one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix: of a flag, a file or a folder. Exit code 2."""


class DivergedError(UserError):
    """A metric or the state is NaN or infinite; the last good checkpoint stays. Exit code 2."""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Ends a message with "; did you mean NEAREST?", or with nothing if no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
