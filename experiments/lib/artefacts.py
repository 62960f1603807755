"""Arrays that take long to compute, kept in files whose names say what they depend on."""

import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.lib import devices
from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.workdir import write_atomic


def digest(*parts: str | np.ndarray) -> str:
    """16 hexadecimal digits of the SHA-256 of texts and arrays with their dtypes and shapes."""
    total = hashlib.sha256()
    for part in parts:
        form = "text" if isinstance(part, str) else f"{part.dtype}{part.shape}"
        content = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        total.update(form.encode() + hashlib.sha256(content).digest())
    return total.hexdigest()[:16]


def kept(path: pathlib.Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Reads the arrays of a file; process 0 computes them first if the file is missing or damaged.

    All processes call it with the same path, in a folder that they share.

    Args:
      path: an .npz file; its name says all that the content depends on.
      make: () -> {name: array}.

    Raises:
      UserError: the file cannot be written, or a process does not see it.
    """
    # The processes meet before the work as well: after that they wait for each other without limit.
    multihost_utils.sync_global_devices(f"{path.name} is looked for")
    devices.together(lambda: _make_if_missing(path, make))
    return devices.together(lambda: _found(path))


def _make_if_missing(path: pathlib.Path, make: Callable[[], Mapping[str, Any]]) -> None:
    if jax.process_index() == 0 and _read(path) is None:
        if path.exists():
            notice(f"warning: {path} is damaged; it is made again")
        check_writable(path.parent)  # before the work, not after it
        _write(path, {name: np.asarray(array) for name, array in make().items()})


def _found(path: pathlib.Path) -> dict[str, np.ndarray]:
    held = _read(path)
    if held is None:
        raise UserError(f"{path}: missing or damaged; expected a folder that all processes share")
    return held


def _read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        whole = str(held.pop("digest")) == digest(*held, *held.values())
    except Exception:  # a damaged file fails in many ways; the arrays are computed again
        return None
    return held if whole else None


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    content = io.BytesIO()
    proof = {"digest": np.array(digest(*arrays, *arrays.values()))}
    np.savez(content, allow_pickle=False, **proof, **arrays)
    own = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two runs may write at once
    write_atomic(own, content.getvalue())
    try:
        own.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def check_writable(folder: pathlib.Path) -> None:
    """Makes a folder if it is missing.

    Raises:
      UserError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; expected a folder") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write; expected a writable folder")
