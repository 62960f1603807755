"""SIGTERM and Ctrl-C: one line at once, and the exit code 128 + signal."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BOTH = [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]


def _start(*command, path=ROOT) -> subprocess.Popen:
    """Starts Python, and waits until the program prints its first line."""
    program = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline(), program.communicate()[1]
    return program


def _ends(program, number, name) -> None:
    program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 128 + number, errors
    lines = [line for line in errors.splitlines() if line]
    assert lines == [f"stopped by {name}; a run keeps its last checkpoint"]


IN_NATIVE_CODE = """
import hashlib
from experiments.lib import interrupts
interrupts.end_program()
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, within one instruction of Python
"""


@pytest.mark.parametrize(("number", "name"), BOTH)
def test_a_program_ends_at_once_though_its_main_thread_runs_native_code(number, name):
    _ends(_start("-c", IN_NATIVE_CODE), number, name)


@pytest.mark.parametrize(("number", "name"), BOTH)
def test_a_run_ends_in_one_line_while_its_libraries_load(tmp_path, number, name):
    (tmp_path / "optax.py").write_text(
        "import time\nprint('loading', flush=True)\ntime.sleep(600)\n"
    )
    _ends(_start("-m", "experiments.glow", path=tmp_path), number, name)


COMPILING = """
import sys, time
import jax.numpy as jnp
import numpy as np
from experiments.lib.config import RunConfig
from experiments.lib.dataset import Arrays, Dataset
from experiments.lib.launch import launch
from experiments.lib.method import Method
def build(config):
    data = Arrays({"x": np.zeros((64, 1), np.float32)})
    def step(state, batch, key):
        print("compiling", flush=True)
        time.sleep(600)
    return Dataset(data, data), Method(lambda key, batch: jnp.zeros(()), step)
launch(build, RunConfig)
"""


@pytest.mark.parametrize(("number", "name"), BOTH)
def test_a_run_ends_in_one_line_before_its_first_step(tmp_path, number, name):
    (tmp_path / "stuck.py").write_text(COMPILING)
    _ends(_start(tmp_path / "stuck.py", "--workdir", tmp_path / "run"), number, name)


def test_a_second_control_c_ends_at_once(start, tmp_path):
    program = start("--workdir", tmp_path / "run", "--pause", 600)
    while not _has_reached_the_test(tmp_path / "run"):
        assert program.poll() is None, program.communicate()[1]
    program.send_signal(signal.SIGINT)
    for line in program.stderr:
        if line == "saving after this step or evaluation; press Ctrl-C again to stop at once\n":
            break
    _ends(program, signal.SIGINT, "Ctrl-C")


def _has_reached_the_test(folder) -> bool:
    path = folder / "metrics.jsonl"
    return path.exists() and '{"step": 20, ' in path.read_text()


IN_A_SESSION = """
import hashlib, os, signal, time
from experiments.lib.interrupts import StopRequest
said = []
request = StopRequest(said.append)
request.listen()
os.kill(os.getpid(), signal.SIGINT)
while not said:  # another thread may take the signal: the handler then runs a little later
    time.sleep(0.01)
assert request.number == signal.SIGINT
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
    print("not raised", flush=True)
except KeyboardInterrupt:
    print("raised", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
request.close()
assert len(said) == 1
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_in_a_session_the_second_control_c_is_an_exception():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SESSION],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised\n", "")


def test_a_run_whose_output_nobody_reads_ends_quietly(toy, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, toy.__file__, "--workdir", str(tmp_path / "run")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, check=False)
    os.close(writing)
    assert (done.returncode, done.stdout) == (141, b"")
    assert (tmp_path / "run" / "metrics.jsonl").exists()


OTHER_PIPE = """
import os
from experiments.lib import interrupts
reading, writing = os.pipe()
os.close(reading)
with interrupts.without_reader():
    os.write(writing, b"x")
"""


def test_another_pipe_that_breaks_is_a_fault():
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PIPE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "BrokenPipeError" in done.stderr
