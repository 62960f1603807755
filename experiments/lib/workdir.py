"""The folder of one run: whose it is, what may be continued in it, and files that appear whole."""

import dataclasses
import json
import os
import pathlib

from experiments.lib.config import CHANGEABLE, RunConfig, flag, rules_of
from experiments.lib.errors import UserError


def write_atomic(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.tmp")
    part.write_bytes(content)
    os.replace(part, path)


def write_json(path: pathlib.Path, content: dict) -> None:
    """Writes a JSON file that appears whole."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: pathlib.Path) -> dict | None:
    """A JSON object of a run's folder, or None where there is no such file.

    Raises:
      UserError: the file holds no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); expected the file of a run") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content


def settings(name: str, config: RunConfig) -> dict:
    """What config.json holds: the experiment's name and every knob, as JSON keeps them."""
    return json.loads(json.dumps({"experiment": name, "config": dataclasses.asdict(config)}))


def claim(name: str, config: RunConfig) -> pathlib.Path:
    """Finds the folder of a run and makes sure that it may be used; writes nothing into it.

    Args:
      name: the experiment.
      config: its knobs.

    Returns:
      The folder; it exists.

    Raises:
      UserError: the folder cannot be written, holds something else, another experiment's run, or
        a run with other knobs.
    """
    if "://" in config.workdir:
        raise UserError(f"--workdir {config.workdir}: expected a folder; mount the bucket as one")
    data = getattr(config, "data", "")
    folder = pathlib.Path(config.workdir or f"runs/{name}-{data}".rstrip("-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = [path.name for path in folder.iterdir() if path.suffix != ".tmp"]
    except OSError as error:
        raise UserError(f"--workdir {folder}: {error.strerror}; expected a folder") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--workdir {folder}: no permission to write; expected a writable folder")
    if held:
        _check_same_run(folder, name, config)
    return folder


def _check_same_run(folder: pathlib.Path, name: str, config: RunConfig) -> None:
    now = settings(name, config)
    before = read_json(folder / "config.json")
    if before is None or not {"experiment", "config"} <= before.keys():
        raise UserError(f"--workdir {folder}: holds files of no run; expected an empty folder")
    if before["experiment"] != now["experiment"]:
        raise UserError(
            f"--workdir {folder}: holds a run of {before['experiment']}; expected one of"
            f" {now['experiment']} or an empty folder"
        )
    if not any(folder.glob("checkpoints/[0-9]*")):
        return  # it ended before its first checkpoint: nothing to continue, nothing to lose
    old, new = before["config"], now["config"]
    free = {knob for knob, rules in rules_of(type(config)).items() if CHANGEABLE in rules}
    differing = [
        f"{flag(knob)} {old.get(knob, 'unset')} there and {new.get(knob, 'unset')} here"
        for knob in {**old, **new}
        if knob not in free and (knob not in old or knob not in new or old[knob] != new[knob])
    ]
    if differing:
        raise UserError(
            f"--workdir {folder}: holds a run with other flags ({', '.join(differing)});"
            " expected the same or another --workdir"
        )
