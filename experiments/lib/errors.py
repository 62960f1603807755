"""The errors that `launch` prints as one line, without a traceback."""


class UserError(Exception):
    """An error that the user can fix: of a flag, a file or a folder. Exit code 2."""


class DivergedError(UserError):
    """A metric or the state is NaN or infinite; the last good checkpoint stays. Exit code 2."""
