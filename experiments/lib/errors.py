"""The faults that are shown to a user as one line, without a traceback."""


class UserError(Exception):
    """A fault the user can fix: a flag, a file, a folder. Exit code 2."""


class DivergedError(UserError):
    """The training left the finite numbers; the last good checkpoint is kept. Exit code 2."""
