"""The folder of a run: who may write into it, what it holds, and files that appear whole."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import pathlib
import socket
from collections.abc import Iterator

from experiments.lib.config import CHANGEABLE, RunConfig, flag, overridden, rules_of
from experiments.lib.errors import UserError

_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system that has none


def write_atomic(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part.

    Raises:
      UserError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.tmp")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes a JSON file that appears whole."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_text(path: pathlib.Path) -> str | None:
    """The text of a file of a run, or None where there is no such file.

    Raises:
      UserError: it is no file, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a file of a run") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {error.start}; expected a file of a run"
        ) from None


def read_json(path: pathlib.Path) -> dict | None:
    """A JSON object of a run's folder, or None where there is no such file.

    Raises:
      UserError: the file cannot be read, or holds no JSON object.
    """
    text = read_text(path)
    try:
        content = None if text is None else json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); expected the file of a run") from None
    if text is not None and not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content


def read_summary(folder: pathlib.Path) -> dict | None:
    """What summary.json holds, or None where there is none.

    Raises:
      UserError: it is not the summary of a run.
    """
    path = folder / "summary.json"
    summary = read_json(path)
    kinds = {
        "experiment": str, "config": dict, "metrics": dict, "steps": int,
        "seconds": int | float, "device": str,
    }  # fmt: skip
    bad = [key for key, kind in kinds.items() if summary and not isinstance(summary.get(key), kind)]
    if bad or summary == {}:
        raise UserError(
            f"{path}: lacks {', '.join(bad or kinds)}; expected the summary of a run (without the"
            " file, the same command makes it again)"
        )
    return summary


def read_tests(folder: pathlib.Path) -> dict[int, dict[str, float]]:
    """Step -> the metrics of the test after it, from metrics.jsonl; null is NaN.

    Raises:
      UserError: metrics.jsonl cannot be read.
    """
    tests = {}
    for line in (read_text(folder / "metrics.jsonl") or "").splitlines():
        if '"test/' not in line:
            continue
        try:
            content = json.loads(line)
            step = int(content.pop("step"))
            numbers = {name: math.nan if x is None else float(x) for name, x in content.items()}
            tests[step] = {name.removeprefix("test/"): x for name, x in numbers.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a kill may have cut the line
    return tests


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps after which there is a checkpoint in a folder of checkpoints, in ascending order.

    Raises:
      UserError: it cannot be listed; a folder that does not exist holds none.
    """
    try:
        names = [path.name for path in pathlib.Path(folder).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; expected a folder of checkpoints") from None
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def settings(name: str, config: RunConfig, **notes) -> dict:
    """What config.json holds: the experiment's name, every knob as JSON keeps it, and notes."""
    content = {"experiment": name, "config": dataclasses.asdict(config), **notes}
    return json.loads(json.dumps(content))


def changes(before: dict, config: RunConfig, step: int) -> list[dict]:
    """The notes of what is different from this step on, of all that the numbers depend on.

    Args:
      before: what config.json held.
      config: what holds from now on.
      step: number of steps done before.
    """
    found = _differing(before["config"], config, but={"steps"})
    return [{"step": step, "flag": flag(k), "before": old, "now": new} for k, old, new in found]


def _data(config: RunConfig) -> list[str]:
    """What the default folder of a run is called after, besides the experiment."""
    data = getattr(config, "data", "")
    if data in ("folder", "npz"):  # one's own pictures: runs on others are other runs
        return [data, pathlib.Path(getattr(config, "data_dir", "")).resolve().stem]
    return [data] if data else []


def claim(name: str, config: RunConfig) -> pathlib.Path:
    """Finds the folder of a run and makes sure that it may be used; writes nothing into it.

    Args:
      name: the experiment.
      config: its knobs.

    Returns:
      The folder; it exists.

    Raises:
      UserError: the folder cannot be written, holds something else, another experiment's run, a
        run with other knobs, or one that has done more steps.
    """
    folder = pathlib.Path(config.workdir or f"runs/{'-'.join([name, *_data(config)])}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = [p.name for p in folder.iterdir() if p.suffix != ".tmp" and p.name != _LOCK]
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError as error:
        expected = "expected a folder that can be written"
        raise UserError(f"--workdir {folder}: {error.strerror}; {expected}") from None
    if read_only:
        raise UserError(f"--workdir {folder}: the disk is read-only; expected a writable folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--workdir {folder}: no permission to write; expected a writable folder")
    if held:
        _check_same_run(folder, name, config)
    return folder


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps every other process from training in a folder, until the context or the process ends.

    The lock is `flock` on a file: the kernel drops it when the process ends in whatever way, it
    also holds between two runs of one process, and Linux makes it a lock of all clients on NFS.

    Raises:
      UserError: a run is training there; the folder is as it was.
    """
    path = folder / _LOCK
    while True:
        try:
            file = path.open("ab+", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; expected a writable folder") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.seek(0)
                owner = file.read().decode(errors="replace") or "another process"
                file.close()
                raise UserError(f"--workdir {folder}: {owner} is training there") from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        file.close()  # the run before removed this file between our two calls: it locks nothing
    try:
        with contextlib.suppress(OSError):  # it serves the message alone
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _check_same_run(folder: pathlib.Path, name: str, config: RunConfig) -> None:
    before = read_json(folder / "config.json")
    if before is None or not isinstance(before.get("config"), dict) or "experiment" not in before:
        raise UserError(f"--workdir {folder}: holds files of no run; expected an empty folder")
    if before["experiment"] != name:
        raise UserError(
            f"--workdir {folder}: holds a run of {before['experiment']}; expected one of"
            f" {name} or an empty folder"
        )
    summary, held = read_summary(folder), steps(folder / "checkpoints")
    read_text(folder / "metrics.jsonl")
    if not summary and not held:
        return  # it ended before its first checkpoint: nothing to continue, nothing to lose
    answer = summary if summary and summary["steps"] == config.steps else None
    old = (answer or before)["config"]
    allowed = set() if answer else overridden(config)
    differing = [
        f"{flag(knob)} {_shown(there)} there and {_shown(here)} here"
        for knob, there, here in _differing(old, config)
        if knob not in allowed
    ]
    if differing:
        more = answer and config.override
        expected = "more --steps to override them for" if more else "the same"
        raise UserError(
            f"--workdir {folder}: holds a run with other flags ({', '.join(differing)});"
            f" expected {expected}, or another --workdir"
        )
    done = max([*held, summary["steps"] if summary else 0])
    if config.steps < done:
        raise UserError(
            f"--steps {config.steps}: the run in {folder} has done {done}; expected at least as"
            " many, or another --workdir"
        )
    if not held and not answer:
        raise UserError(
            f"--steps {config.steps}: the run in {folder} has done {done} and its checkpoints are"
            f" gone; expected --steps {done}, or another --workdir"
        )


def _differing(old: dict, config: RunConfig, but=frozenset()) -> list[tuple]:
    """(knob, value in old, value now) of every knob that may not simply change, and of `but`."""
    new = settings("", config)["config"]
    free = {knob for knob, rules in rules_of(type(config)).items() if CHANGEABLE in rules} - but
    return [
        (knob, old.get(knob, "unset"), new.get(knob, "unset"))
        for knob in {**old, **new}
        if knob not in free and (knob not in old or knob not in new or old[knob] != new[knob])
    ]


def _shown(value) -> str:
    return '""' if value == "" else str(value)
