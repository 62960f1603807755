"""What a run tells: metrics.jsonl, TensorBoard, and the bar or the lines on the terminal."""

import collections
import itertools
import json
import math
import pathlib
import statistics
import sys
import time

import jax
import tqdm

from experiments.lib.workdir import read_text, write_atomic

_QUIET_SECONDS = 10  # between two lines where the output is no terminal


def notice(text: str) -> None:
    """Tells the user what is happening: one line on stderr, from the first process alone."""
    if jax.process_index() == 0:
        tqdm.tqdm.write(text, file=sys.stderr)  # keeps clear of a bar


class Logs:
    """The metrics of one run; processes other than the first write and show nothing.

    metrics.jsonl has one JSON object per line: {"step": n, "train/loss": ..., ...}; a number that
    is not finite is null.
    """

    def __init__(self, folder: pathlib.Path, start: int, steps: int):
        """Continues the files of a run.

        Args:
          folder: of the run.
          start: steps done; what was logged later is dropped, it will be logged again.
          steps: all steps of the run.
        """
        self._active = jax.process_index() == 0
        self._times: collections.deque = collections.deque(maxlen=1000)
        if not self._active:
            return
        import tensorboardX  # noqa: PLC0415  imports slowly, and errors should show at once

        _keep_until(folder / "metrics.jsonl", start)
        self._file = (folder / "metrics.jsonl").open("a")
        self._board = tensorboardX.SummaryWriter(
            str(folder / "tensorboard"), purge_step=start + 1 if start else None
        )
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=steps, initial=start, disable=not self._terminal, unit="step")
        self._steps = steps
        self._spoke = -math.inf

    def advance(self) -> None:
        """Moves the bar on by one step."""
        self._times.append(time.monotonic())
        if self._active:
            self._bar.update()

    def step_seconds(self) -> float | None:
        """Median time between two of the last 1000 steps, or None."""
        gaps = [b - a for a, b in itertools.pairwise(self._times)]
        return float(f"{statistics.median(gaps):.3g}") if gaps else None

    def write(self, group: str, step: int, metrics: dict[str, float]) -> None:
        """Logs the numbers of one step.

        Args:
          group: "train" or "test"; the names become "train/loss", ...
          step: number of steps done.
          metrics: name -> number.
        """
        if not self._active:
            return
        line = {f"{group}/{name}": value for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in line.items():
            self._board.add_scalar(name, value, step)
        self._show(group, step, metrics)

    def _show(self, group: str, step: int, metrics: dict[str, float]) -> None:
        numbers = "  ".join(f"{name} {value:.5g}" for name, value in metrics.items())
        text = f"step {step}/{self._steps}  {group}: {numbers}"
        if self._terminal and group == "train":
            self._bar.set_postfix_str(numbers, refresh=False)
        elif self._terminal:
            self._bar.write(text, file=sys.stderr)
        elif group != "train" or time.monotonic() - self._spoke >= _QUIET_SECONDS:
            self._spoke = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the files and the bar."""
        if self._active:
            self._file.close()
            self._board.close()
            self._bar.close()


def _keep_until(path: pathlib.Path, step: int) -> None:
    """Drops the lines after a step; a kill may have left the last line half written."""
    text = read_text(path)
    if text is None:
        return
    kept = []
    for line in text.splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_atomic(path, "".join(kept).encode())
