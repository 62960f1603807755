"""metrics.jsonl and TensorBoard: each number once, whatever cut the run."""

import contextlib
import json
import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.lib.logs import Logs


def _log(folder, start, steps):
    with contextlib.closing(Logs(folder, start, steps[-1])) as logs:
        for step in steps:
            logs.advance()
            logs.write("train", step, {"loss": 1 / step})


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _board(folder) -> list[tuple[str, int, float]]:
    """The scalars in the event files: records of length, checksum, message, checksum."""
    scalars = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            scalars += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            content = content[16 + length :]
    return scalars


def test_numbers_are_logged(tmp_path):
    _log(tmp_path, 0, [1, 2])
    assert _lines(tmp_path) == [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 0.5}]
    assert _board(tmp_path) == [("train/loss", 1, 1.0), ("train/loss", 2, 0.5)]


@pytest.mark.parametrize(
    "tail", ["", '{"step": 5, "tr', '{"step": 2}', '{"step": 5}', "\n\x00\x00", "[5]\n"]
)
def test_what_came_after_the_checkpoint_is_dropped(tmp_path, tail):
    _log(tmp_path, 0, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    _log(tmp_path, 2, [3, 4, 5])
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_what_is_not_finite_is_null(tmp_path):
    with contextlib.closing(Logs(tmp_path, 0, 1)) as logs:
        logs.write("test", 1, {"nll": math.nan, "accuracy": 0.5})
    assert _lines(tmp_path) == [{"step": 1, "test/nll": None, "test/accuracy": 0.5}]


def test_without_a_terminal_few_lines_are_printed(tmp_path, capsys):
    with contextlib.closing(Logs(tmp_path, 0, 100)) as logs:
        for step in range(1, 100):
            logs.write("train", step, {"loss": 1.0})
        logs.write("test", 100, {"nll": 2.0})
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["step 1/100  train: loss 1", "step 100/100  test: nll 2"]


def test_on_a_terminal_a_bar_is_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _log(tmp_path, 90, range(91, 101))
    shown = capsys.readouterr().err
    assert "90/100" in shown
    assert "100/100" in shown
    assert "loss 0.01" in shown
