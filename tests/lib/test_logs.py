"""metrics.jsonl and TensorBoard: each number once, whatever cut the run."""

import contextlib
import json
import math
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from experiments.lib import logs as logs_module
from experiments.lib.logs import Logs, announced
from experiments.lib.pictures import save_png


def _log(folder, start, steps):
    with contextlib.closing(Logs(folder, start, steps[-1])) as logs:
        for step in steps:
            logs.advance()
            logs.write("train", step, {"loss": 1 / step})


def _lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _board(folder) -> list[tuple[str, int, float | bytes]]:
    """What TensorBoard shows: a session that starts at a step hides what was logged from there on.

    The files hold records of length, checksum, message, checksum.
    """
    shown = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            message, end = content[12 : 12 + length], 12 + length
            sums = struct.unpack("<II", content[8:12] + content[end : end + 4])
            assert sums == (masked_crc32c(content[:8]), masked_crc32c(message))
            event = Event.FromString(message)
            if event.session_log.status == SessionLog.START:
                shown = [point for point in shown if point[1] < event.step]
            for value in event.summary.value:
                number = value.image.encoded_image_string or value.simple_value
                shown.append((value.tag, event.step, number))
            content = content[16 + length :]
    return [point for point in shown if not point[0].startswith("speed/")]


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


def test_tensorboard_has_what_metrics_has_though_the_run_is_killed(tmp_path):
    logs = Logs(tmp_path, 0, 300)
    for step in range(1, 241):
        logs.write("train", step, {"loss": 1.0})
    assert len(_board(tmp_path)) == len(_lines(tmp_path)) == 240  # and nothing was closed
    logs.close()


@pytest.mark.parametrize("start", [0, 2])
def test_a_continued_run_hides_its_later_points(tmp_path, start):
    _log(tmp_path, 0, [1, 2, 3, 4])
    _log(tmp_path, start, range(start + 1, 4))
    assert _board(tmp_path) == [("train/loss", step, pytest.approx(1 / step)) for step in (1, 2, 3)]


def test_pictures_and_speed_are_in_tensorboard(tmp_path):
    save_png(tmp_path / "pictures" / "cool-samples-0000007.png", np.zeros((4, 6, 3)))
    with contextlib.closing(Logs(tmp_path, 0, 10)) as logs:
        for step in (1, 2):
            logs.advance()
            logs.write("train", step, {"loss": 1.0})
        logs.picture(tmp_path / "pictures" / "cool-samples-0000007.png", 7)
    content = (tmp_path / "pictures" / "cool-samples-0000007.png").read_bytes()
    assert _board(tmp_path)[-1] == ("pictures/cool-samples", 7, content)
    written = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    assert written.count(b"speed/steps_per_second") == 1  # after one step it is not known


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


def test_lines_tell_the_speed_and_the_time_left_of_this_start(tmp_path, capsys, monkeypatch):
    clock = iter([100, 100.5, 101, 109])  # the last of the steps waits for a test
    monkeypatch.setattr(logs_module.time, "monotonic", lambda: next(clock, 109))
    with contextlib.closing(Logs(tmp_path, 900, 1000)) as logs:
        for _ in range(4):
            logs.advance()
        logs.write("test", 904, {"nll": 2.0})
    # Half a second for most steps; 3 seconds for each of the 96 that are left, with their tests.
    assert capsys.readouterr().err == "step 904/1000  test: nll 2  (2 steps/s, 04:48 left)\n"


def test_what_takes_long_is_announced_and_what_does_not_is_not(capsys, monkeypatch):
    with announced("compiling"):
        pass
    monkeypatch.setattr(logs_module, "_PATIENCE", 0)
    shown = ""
    with announced("testing on 360 examples"):
        while not shown:
            shown += capsys.readouterr().err
    assert shown == "testing on 360 examples\n"


def test_on_a_terminal_a_bar_is_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    _log(tmp_path, 90, range(91, 101))
    shown = capsys.readouterr().err
    assert "90/100" in shown
    assert "100/100" in shown
    assert "loss 0.01" in shown
