"""Checkpoints that are whole or not used: asynchronous, atomic, the last three, each proved."""

import contextlib
import gc
import os
import pathlib
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jax.experimental import multihost_utils

from experiments.lib.errors import DivergedError, UserError


class Checkpoints:
    """The checkpoints of one run, in a folder that every process sees.

    The state is any pytree of arrays. Beside it lies a fingerprint of every leaf, so that a file
    that was damaged without a trace is still noticed.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(3), cleanup_tmp_directories=True
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
        leaves, names = _leaves(state)
        prints, finite = jax.device_get(_examine(leaves))
        bad = [name for name, good in zip(names, finite, strict=True) if not good]
        if bad:
            raise DivergedError(f"step {step}: not finite in the state: {', '.join(bad)}")
        proof = {"names": names, "prints": prints.tolist(), "seconds": seconds}
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(leaves), proof=ocp.args.JsonSave(proof)
        )
        self.wait()
        try:
            self._manager.save(step, args=arguments, force=True)
        except OSError as error:
            raise UserError(f"{self.folder / str(step)}: cannot be written ({error})") from None

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
            raise UserError(f"{self.folder}: cannot be written ({_short(error)})") from None

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
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason = ""
            try:
                with _without_echo():
                    state, seconds = self._read(step, like)
            except MemoryError:
                raise
            except Exception as error:  # a damaged file fails in the reader of its own format
                reason = _short(error)
            # All processes take the same checkpoint, also where only one could not read it.
            if not multihost_utils.process_allgather(np.array(not reason)).all():
                damaged[step] = reason or "another process cannot read it"
                continue
            self._set_aside(damaged, step)
            return step, state, seconds
        if damaged:
            newest = max(damaged)
            raise UserError(
                f"{self.folder / str(newest)}: {damaged[newest]}; none of the {len(damaged)}"
                " checkpoints can be used, expected at least one"
            )
        return None

    def close(self) -> None:
        """Waits for what is being written, and ends the threads."""
        self._manager.close()

    def _read(self, step: int, like):
        leaves, names = _leaves(like)
        read = ocp.args.Composite(proof=ocp.args.JsonRestore())
        proof = self._manager.restore(step, args=read)["proof"]
        if proof["names"] != names:
            differing = sorted({*proof["names"]} ^ {*names}) or ["their order"]
            raise ValueError(f"the state has other leaves: {', '.join(differing[:4])}")
        read = ocp.args.Composite(state=ocp.args.StandardRestore(leaves))
        leaves = self._manager.restore(step, args=read)["state"]
        prints, _ = jax.device_get(_examine(leaves))
        wrong = [n for n, a, b in zip(names, prints, proof["prints"], strict=True) if a != b]
        if wrong:
            raise ValueError(f"the fingerprint of {wrong[0]} differs")
        return _refill(like, leaves), float(proof["seconds"])

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
                print(
                    f"warning: {place} is damaged ({reason}); moved to {aside}, using step {used}",
                    file=sys.stderr,
                )
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


def _leaves(state) -> tuple[list, list[str]]:
    """The leaves to write and their names; orbax writes no array of size zero."""
    named = [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(state)]
    kept = [(f"{name} {x.dtype}{list(x.shape)}", x) for name, x in named if x.size]
    return [x for _, x in kept], [name for name, _ in kept]


def _refill(like, leaves: list):
    """The pytree of the leaves that `_leaves` took out."""
    filled = iter(leaves)
    return jax.tree.map(
        lambda x: next(filled) if x.size else jnp.zeros(x.shape, x.dtype, device=x.sharding), like
    )


@jax.jit
def _examine(leaves):
    """Per leaf: a fingerprint of its bits, and whether all its numbers are finite."""
    prints = jnp.stack([_fingerprint(x) for x in leaves])
    return prints, jnp.stack([jnp.isfinite(x).all() for x in leaves])


def _fingerprint(x):
    """Sum of the bits of each number times 2 * its position + 1, modulo 2^32.

    Integers: the order of the sum, hence the sharding, does not matter. Odd weights are invertible
    modulo 2^32: no change of a single number goes unnoticed.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    width = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    place, stride = jnp.uint32(0), 1
    for axis in reversed(range(bits.ndim)):
        place += jnp.uint32(stride % 2**32) * lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        stride *= bits.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)


@contextlib.contextmanager
def _without_echo():
    """Orbax abandons its other reads when one fails, and Python would print each of them."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        gc.collect()
        sys.unraisablehook = hook


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:160] + "..."
