"""What is made from a source once and kept on disk, for all processes and all runs."""

import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from experiments.lib import devices
from experiments.lib.artefacts import check_writable, digest
from experiments.lib.errors import UserError
from experiments.lib.logs import announced, notice

T = TypeVar("T")


def identity(path: pathlib.Path, expected: str) -> tuple[str, int, int]:
    """Identifies the content of a file: where it lies, its size and when it was changed.

    Raises:
      UserError: it is missing, a folder or empty; the message ends with `expected`.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {expected}") from None
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {expected}")
    if not facts.st_size:
        raise UserError(f"{path}: is empty; {expected}")
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns


def place(folder: str | pathlib.Path, name: str, *content) -> pathlib.Path:
    """The folder for what is made of `content`, plain values such as those of `identity`."""
    name = re.sub(r"[^\w.-]", "_", name)[:50]
    # In ASCII, for a path may hold bytes that are no text.
    return pathlib.Path(folder) / f"{name}-{digest(ascii(content))}"


def kept(
    place: pathlib.Path,
    make: Callable[[pathlib.Path], None],
    read: Callable[[pathlib.Path], T | None],
    doing: str,
) -> T:
    """Reads what is kept in a folder; process 0 makes it first if it is missing or damaged.

    Args:
      place: the folder.
      make: fills an empty folder.
      read: a folder -> what it holds, or None if it is missing or damaged.
      doing: what `make` does, for the user.

    Raises:
      UserError: that of `make`, or the folder cannot be written, or is not shared by all processes.
    """
    # All wait here first: this barrier has a time limit, the later ones have none.
    multihost_utils.sync_global_devices(f"{place.name} is looked for")
    with announced(f"{doing}, once for all runs; kept in {place}"):
        devices.together(lambda: _make_if_missing(place, make, read))
    return devices.together(lambda: _found(place, read))


def _make_if_missing(place: pathlib.Path, make: Callable, read: Callable) -> None:
    if jax.process_index() or read(place) is not None:
        return
    if place.exists():
        notice(f"warning: {place} is damaged; it is made again")
    check_writable(place.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".corpus-", dir=place.parent) as folder:
            part = pathlib.Path(folder, place.name)
            part.mkdir()
            make(part)
            if read(place) is None:  # another run may have made it by now
                shutil.rmtree(place, ignore_errors=True)
                part.replace(place)
    except OSError as error:
        if read(place) is not None:  # another run was faster
            return
        raise UserError(f"{place}: cannot be written ({error.strerror})") from None


def _found(place: pathlib.Path, read: Callable[[pathlib.Path], T | None]) -> T:
    found = read(place)
    if found is None:
        raise UserError(f"{place}: missing or damaged; expected a folder that all processes share")
    return found
