"""Checkpoints: written asynchronously and atomically, checked bit for bit when they are read.

`Checkpoints` belongs to the process that trains; `steps` and `read` change nothing on the disk, so
any other process may use them at any time, also while the run goes on.
"""

import contextlib
import errno
import functools
import gc
import json
import logging
import os
import pathlib
import shutil
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments.lib import devices, fingerprints
from experiments.lib.errors import DivergedError, UserError
from experiments.lib.logs import notice
from experiments.lib.workdir import steps

_LAST = 3  # checkpoints that are kept, besides the best one


def read(folder: str | os.PathLike, like, step: int | None = None) -> tuple[int, Any, float]:
    """Reads a checkpoint and changes nothing on the disk; the run may be training meanwhile.

    Without `step` it reads the newest whole checkpoint, and warns of newer ones that are damaged.
    Where several processes read, all of them call it and get the same checkpoint.

    Args:
      folder: of the checkpoints.
      like: the state as a pytree of jax.ShapeDtypeStruct with shardings.
      step: number of steps done in the wanted checkpoint.

    Returns:
      (steps done, state, seconds trained).

    Raises:
      UserError: there is no such checkpoint, or none that is whole and of this form.
    """
    folder = pathlib.Path(folder).absolute()
    held = steps(folder)
    if held and step is not None and step not in held:
        raise UserError(f"{folder}: no step {step}; expected one of {', '.join(map(str, held))}")
    found, damaged = _newest(folder, like, step)
    if not found and not damaged:
        raise UserError(f"{folder}: holds no checkpoint; expected at least one")
    for bad, reason in damaged.items():
        if found and (folder / str(bad)).exists():  # else the writer has deleted it meanwhile
            notice(f"warning: {folder / str(bad)} is damaged ({reason}); using step {found[0]}")
    return found or _refuse(folder, damaged)


class Checkpoints:
    """The checkpoints of one run, in a folder that every process sees.

    The state is any pytree of arrays. Beside it lies a fingerprint of every leaf, so that a file
    that was damaged without a trace is still noticed.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        _say_failures_once()
        self._policy = _LastAndKept()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state, seconds: float) -> None:
        """Starts to write a checkpoint; returns when the state may be changed again.

        Args:
          step: number of steps done.
          state: pytree of arrays.
          seconds: time trained so far, kept beside the state.

        Raises:
          DivergedError: the state is not finite; nothing is written.
          UserError: the checkpoint before, or this one, could not be written.
        """
        leaves, names = fingerprints.leaves(state)
        prints, finite = jax.device_get(fingerprints.examine(leaves))
        bad = [name for name, good in zip(names, finite, strict=True) if not good]
        if bad:
            raise DivergedError(f"step {step}: not finite in the state: {', '.join(bad)}")
        proof = {"names": names, "prints": prints.tolist(), "seconds": seconds}
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(leaves), proof=ocp.args.JsonSave(proof)
        )
        with _written(self.folder):
            self._manager.wait_until_finished()
            self._manager.save(step, args=arguments, force=True)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UserError: it could not be written.
        """
        with _written(self.folder):
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """Steps done in the newest checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, like) -> tuple[int, Any, float] | None:
        """Reads the newest checkpoint that is whole; sets damaged newer ones aside, and says so.

        Args:
          like: the state as a pytree of jax.ShapeDtypeStruct with shardings.

        Returns:
          (steps done, state, seconds trained), or None where there is no checkpoint.

        Raises:
          UserError: there are checkpoints, and none can be used. Nothing is changed then.
        """
        found, damaged = _newest(self.folder, like)
        if found:
            self._set_aside(damaged, found[0])
        elif damaged:
            _refuse(self.folder, damaged)
        return found

    def keep(self, step: int | None) -> None:
        """Keeps the checkpoint of this step besides the last ones, instead of the one before."""
        self._policy.kept = step

    def close(self) -> None:
        """Waits for what is being written, and ends the threads.

        Raises:
          UserError: it could not be written.
        """
        with _written(self.folder):
            self._manager.close()

    def _set_aside(self, damaged: dict[int, str], used: int) -> None:
        if not damaged:
            return
        aside = self.folder.with_name("damaged_checkpoints")
        if jax.process_index() == 0:
            aside.mkdir(exist_ok=True)
            for step, reason in damaged.items():
                place = self.folder / str(step)
                shutil.rmtree(aside / str(step), ignore_errors=True)
                os.replace(place, aside / str(step))
                notice(
                    f"warning: {place} is damaged ({reason}); moved to {aside}, using step {used}"
                )
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


class _LastAndKept:
    """The rule of what orbax deletes: everything but the last checkpoints and a chosen one."""

    kept: int | None = None

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        last = {checkpoint.step for checkpoint in checkpoints[-_LAST:]}
        return [c.step in last or c.step == self.kept for c in checkpoints]


def _newest(folder: pathlib.Path, like, wanted: int | None = None):
    """((step, state, seconds) or None, {step: why it cannot be used}): the newest, or the wanted.

    The folder is listed again after every failure: the process that trains may have written newer
    checkpoints and deleted this one.
    """
    damaged: dict[int, str] = {}
    while True:
        left = [s for s in steps(folder) if s not in damaged and wanted in (None, s)]
        # Process 0 chooses: the others may see the folder a moment later.
        step = devices.of_first(max(left, default=-1))
        if step < 0:
            return None, damaged
        reason, found = "", None
        try:
            with _without_echo():
                found = (step, *_read(folder / str(step), like))
        except MemoryError:
            raise
        except Exception as error:  # a damaged file fails in the reader of its own format
            reason = _short(error)
        # All processes take the same checkpoint, also where only one could not read it.
        if multihost_utils.process_allgather(np.array(found is not None)).all():
            return found, damaged
        damaged[step] = reason or "another process cannot read it"


def _read(place: pathlib.Path, like) -> tuple[Any, float]:
    """(state, seconds trained) of one checkpoint; orbax's handlers themselves write nothing."""
    leaves, names = fingerprints.leaves(like)
    proof = json.loads((place / "proof" / "metadata").read_bytes())
    if proof["names"] != names:
        raise ValueError(_difference(proof["names"], names))
    arguments = ocp.args.StandardRestore(leaves)
    leaves = ocp.StandardCheckpointHandler().restore(place / "state", args=arguments)
    prints, _ = jax.device_get(fingerprints.examine(leaves))
    wrong = [n for n, a, b in zip(names, prints, proof["prints"], strict=True) if a != b]
    if wrong:
        raise ValueError(f"the fingerprint of {wrong[0]} differs")
    return fingerprints.refill(like, leaves), float(proof["seconds"])


def _refuse(folder: pathlib.Path, damaged: dict[int, str]):
    newest = max(damaged)
    raise UserError(
        f"{folder / str(newest)}: {damaged[newest]}; none of the {len(damaged)} checkpoints tried"
        " can be used, expected one of the same flags and version of the code, or another folder"
    )


def _difference(there: list[str], here: list[str]) -> str:
    """Which leaves of two states differ, given as "name form"."""
    old, new = (dict(name.rsplit(" ", 1) for name in names) for names in (there, here))
    differing = [
        f"{name} {old.get(name, 'absent')} there and {new.get(name, 'absent')} here"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return f"the state differs: {', '.join(differing[:3]) or 'the order of its leaves'}{more}"


@contextlib.contextmanager
def _written(folder: pathlib.Path):
    """Tells a failure of orbax to write in one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
        full = "RESOURCE_EXHAUSTED" in str(error) or getattr(error, "errno", 0) == errno.ENOSPC
        reason = "no space left on the disk" if full else _short(error)
        raise UserError(f"{folder}: cannot be written ({reason})") from None


@contextlib.contextmanager
def _without_echo():
    """Silences what Python would print of the other reads that orbax abandons when one fails."""
    _say_failures_once()
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook


@functools.cache  # installed once
def _say_failures_once() -> None:
    """Silences the tracebacks that orbax prints of a failure which it also raises.

    It logs them from each of its threads; and a read or write that it abandoned because another
    failed may end at any later time, and find its event loop closed.
    """
    hook = sys.unraisablehook

    def without_abandoned(unraisable):
        text = str(unraisable.exc_value)
        closed = "Event loop is closed" in text and unraisable.object is None
        if not (closed or "OCDBT" in text):  # the format of the files that orbax writes
            hook(unraisable)

    def is_foreign(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or f"{os.sep}orbax{os.sep}" not in record.pathname

    def was_retrieved(record: logging.LogRecord) -> bool:
        return "exception was never retrieved" not in record.getMessage()

    sys.unraisablehook = without_abandoned
    logging.getLogger("absl").addFilter(is_foreign)
    logging.getLogger("asyncio").addFilter(was_retrieved)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:160] + "..."
