"""The output of a run: metrics.jsonl, TensorBoard, and a progress bar or lines on stderr."""

import collections
import contextlib
import itertools
import json
import math
import os
import pathlib
import statistics
import struct
import sys
import threading
import time
from collections.abc import Iterator

import jax
import tqdm

from experiments.lib.workdir import read_text, write_atomic

_QUIET_SECONDS = 10  # between two lines where the output is no terminal
_PATIENCE = 2  # seconds after which a user wants to know what takes so long


def notice(text: str) -> None:
    """Tells the user what is happening: one line on stderr, from the first process alone."""
    if jax.process_index() == 0:
        tqdm.tqdm.write(text, file=sys.stderr)  # keeps clear of a bar


@contextlib.contextmanager
def announced(text: str) -> Iterator[None]:
    """Tells the user what is happening inside, where it takes longer than two seconds."""
    timer = threading.Timer(_PATIENCE, notice, (text,))
    timer.daemon = True  # the program does not wait for it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Logs:
    """Writes and shows the metrics of one run; only the first process does.

    metrics.jsonl has one JSON object per line: {"step": n, "train/loss": ..., ...}; a number that
    is not finite is null. TensorBoard has the same numbers, the pictures, and the speed.
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
        _keep_until(folder / "metrics.jsonl", start)
        self._file = (folder / "metrics.jsonl").open("a")
        self._board = _Board(folder / "tensorboard", start)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=steps, initial=start, disable=not self._terminal, unit="step")
        self._steps = steps
        self._spoke = -math.inf
        self._advanced = 0
        self._began = 0.0

    def advance(self) -> None:
        """Advances the progress bar by one step."""
        now = time.monotonic()
        self._times.append(now)
        if self._active:
            self._began = self._began or now
            self._advanced += 1
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
        seconds = self.step_seconds()
        if group == "train" and seconds:  # not in metrics.jsonl, which is equal for equal runs
            line["speed/steps_per_second"] = 1 / seconds
        self._board.write(step, [{"tag": n, "simple_value": v} for n, v in line.items()])
        self._show(group, step, metrics)

    def picture(self, path: pathlib.Path, step: int) -> None:
        """Shows a PNG file, NAME-STEP.png, in TensorBoard."""
        if self._active:
            name = path.stem.rpartition("-")[0]
            content = path.read_bytes()
            width, height = struct.unpack(">II", content[16:24])  # of the file's first chunk
            image = {"width": width, "height": height, "encoded_image_string": content}
            self._board.write(step, [{"tag": f"pictures/{name}", "image": image}])

    def _pace(self, step: int) -> str:
        """Steps per second, and the time left if tests take their share as before."""
        seconds = self.step_seconds()
        if not seconds:
            return ""
        mean = (self._times[-1] - self._began) / (self._advanced - 1)
        left = tqdm.tqdm.format_interval((self._steps - step) * mean)
        return f"  ({1 / seconds:.3g} steps/s, {left} left)"

    def _show(self, group: str, step: int, metrics: dict[str, float]) -> None:
        numbers = "  ".join(f"{name} {value:.5g}" for name, value in metrics.items())
        text = f"step {step}/{self._steps}  {group}: {numbers}"
        if self._terminal and group == "train":
            self._bar.set_postfix_str(numbers, refresh=False)
        elif self._terminal:
            self._bar.write(text, file=sys.stderr)
        elif group != "train" or time.monotonic() - self._spoke >= _QUIET_SECONDS:
            self._spoke = time.monotonic()
            print(text + self._pace(step), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the files and the bar."""
        if self._active:
            self._file.close()
            self._board.close()
            self._bar.close()


class _Board:
    """An event file of TensorBoard.

    `write` hands each event to the operating system before it returns. The writer of tensorboardX
    puts events into two queues, and a killed process loses what is in them.
    """

    def __init__(self, folder: pathlib.Path, start: int):
        # Imported here, as it takes time and errors in the flags should show at once.
        from tensorboardX.proto import event_pb2  # noqa: PLC0415
        from tensorboardX.record_writer import masked_crc32c  # noqa: PLC0415

        self._event, self._checksum = event_pb2.Event, masked_crc32c
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        path = folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
        self._file = path.open("xb", buffering=0)
        self._add(file_version="brain.Event:2")
        # TensorBoard hides what a killed program logged from this step on.
        self._add(step=start + 1, session_log={"status": event_pb2.SessionLog.START})

    def write(self, step: int, values: list[dict]) -> None:
        """Adds the values of one step."""
        self._add(step=step, summary={"value": values})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, **content) -> None:
        event = self._event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(event))
        sums = [struct.pack("<I", self._checksum(part)) for part in (length, event)]
        self._file.write(length + sums[0] + event + sums[1])


def _keep_until(path: pathlib.Path, step: int) -> None:
    """Drops the lines after a step, and a last line that a kill has cut."""
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
