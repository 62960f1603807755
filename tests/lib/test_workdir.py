"""The folder of a run: nothing of another run, and nothing foreign, is touched."""

import errno
import json
import math
import os
import pathlib
import shutil
import socket
import types

import pytest

from experiments.lib import workdir
from experiments.lib.config import RunConfig
from experiments.lib.errors import UserError
from experiments.lib.sources.images import ImageConfig


@pytest.fixture
def run(tmp_path):
    """A folder that holds a run with the default flags, and a checkpoint of it."""
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    workdir.write_json(tmp_path / "config.json", workdir.settings("nice", ImageConfig()))
    return tmp_path


def _contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert workdir.claim("nice", ImageConfig(data="mnist")) == pathlib.Path("runs/nice-mnist")
    own = ImageConfig(data="folder", data_dir="/photos/cats")
    assert workdir.claim("nice", own) == pathlib.Path("runs/nice-folder-cats")
    assert workdir.claim("toy", RunConfig()) == pathlib.Path("runs/toy")
    assert (tmp_path / "runs" / "nice-mnist").is_dir()


def test_the_same_run_may_go_on(run):
    free = ImageConfig(
        workdir=str(run), steps=17, log_every=3, eval_every=4, checkpoint_every=5, data_dir="moved"
    )
    assert workdir.claim("nice", free) == run


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("glow", {}, "holds a run of nice; expected one of glow or an empty folder"),
        ("nice", {"batch_size": 8}, r"other flags \(--batch-size 64 there and 8 here\)"),
        (
            "nice",
            {"seed": 1, "data": "x"},
            "--seed 0 there and 1 here, --data digits there and x h",
        ),
    ],
)
def test_another_run_is_refused(run, name, changed, message):
    before = _contents(run)
    with pytest.raises(UserError, match=message):
        workdir.claim(name, ImageConfig(workdir=str(run), **changed))
    assert _contents(run) == before


def test_a_run_that_ended_before_its_first_checkpoint_leaves_the_folder_free(run):
    (run / "checkpoints" / "10").rmdir()
    assert workdir.claim("nice", ImageConfig(workdir=str(run), batch_size=8)) == run
    with pytest.raises(UserError, match="holds a run of nice"):
        workdir.claim("glow", ImageConfig(workdir=str(run)))


def test_a_bucket_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--workdir gs://bucket/run: expected a folder"):
        workdir.claim("nice", ImageConfig(workdir="gs://bucket/run"))
    assert not list(tmp_path.iterdir())


def test_a_knob_that_is_new_or_gone_is_named(run):
    settings = json.loads((run / "config.json").read_text())
    del settings["config"]["seeds"]
    settings["config"]["width"] = 3
    workdir.write_json(run / "config.json", settings)
    with pytest.raises(
        UserError, match="--width 3 there and unset here, --seeds unset there and 1"
    ):
        workdir.claim("nice", ImageConfig(workdir=str(run)))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("thesis.tex", "years", "holds files of no run; expected an empty folder"),
        ("config.json", '{"model": "gpt"}', "holds files of no run"),
        ("config.json", '{"experiment": "ni', "config.json: not JSON"),
        ("config.json", "[1, 2]", "config.json: expected a JSON object"),
        ("config.json", '{"experiment": "nice", "config": []}', "holds files of no run"),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        workdir.claim("nice", ImageConfig(workdir=str(tmp_path)))
    assert _contents(tmp_path) == {str(tmp_path / file): content.encode()}


def test_a_folder_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir .*/file: File exists; expected a folder"):
        workdir.claim("nice", ImageConfig(workdir=str(tmp_path / "file")))
    # The tests may run as root, who may write everywhere, and mount no disk.
    with monkeypatch.context() as patch:
        disk = types.SimpleNamespace(f_flag=os.ST_RDONLY)
        patch.setattr(workdir.os, "statvfs", lambda path: disk)
        with pytest.raises(UserError, match="the disk is read-only; expected a writable folder"):
            workdir.claim("nice", ImageConfig(workdir=str(tmp_path / "new")))
    monkeypatch.setattr(workdir.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="no permission to write"):
        workdir.claim("nice", ImageConfig(workdir=str(tmp_path / "new")))


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    workdir.write_json(path, {"a": 1})

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workdir.os, "replace", fail)
    with pytest.raises(UserError, match=r"json: cannot be written \(No space left"):
        workdir.write_json(path, {"a": 2})
    assert workdir.read_json(path) == {"a": 1}
    # What is left over of it does not make the folder foreign.
    path.unlink()
    assert workdir.claim("nice", ImageConfig(workdir=str(tmp_path))) == tmp_path


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", b'{"steps": 60}', "summary.json: lacks experiment, config, metrics, sec"),
        ("summary.json", b"{}", "summary.json: lacks experiment, config, metrics, steps, seconds"),
        ("summary.json", None, "summary.json: Is a directory; expected a file of a run"),
        ("metrics.jsonl", None, "metrics.jsonl: Is a directory; expected a file of a run"),
        ("metrics.jsonl", b'{"step": "\xff"}', "metrics.jsonl: not UTF-8 at byte 10; expected"),
        ("config.json", b"\xff", "config.json: not UTF-8 at byte 0; expected a file of a run"),
        ("checkpoints", b"", "checkpoints: Not a directory; expected a folder of checkpoints"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(run, file, content, message):
    if file == "checkpoints":
        shutil.rmtree(run / "checkpoints")
    (run / file).mkdir() if content is None else (run / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{run}/{message}"):
        workdir.claim("nice", ImageConfig(workdir=str(run)))


def test_tests_are_read_from_the_lines_that_are_whole(tmp_path):
    assert workdir.read_tests(tmp_path) == {}
    lines = [
        '{"step": 1, "train/loss": 2.0}', '{"step": 2, "test/nll": 0.1, "test/cfid": null}',
        '[3, "test/nll"]', '{"test/nll": 1}', '{"step": 4, "test/nll": 0.2}', '{"step": 5, "test/n',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = workdir.read_tests(tmp_path)
    assert found == {2: {"nll": 0.1, "cfid": pytest.approx(math.nan, nan_ok=True)}, 4: {"nll": 0.2}}


def test_a_lock_holds_until_its_end(tmp_path):
    for _ in range(2):
        with workdir.locked(tmp_path):
            held = (tmp_path / ".lock").read_text()
            assert held == f"process {os.getpid()} on {socket.gethostname()}"
            expected = f"--workdir {tmp_path}: {held} is training there"
            with pytest.raises(UserError, match=expected), workdir.locked(tmp_path):
                pass
            # What it leaves there, also after a crash, does not make a new folder one of a run.
            assert workdir.claim("nice", ImageConfig(workdir=str(tmp_path))) == tmp_path
        assert not list(tmp_path.iterdir())


def test_where_there_are_no_locks_a_run_goes_on(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workdir.fcntl, "flock", flock)
    with workdir.locked(tmp_path):
        pass
