"""One process or many: the same global batch, the same numbers, one common stop."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.lib import devices, workdir
from experiments.lib.errors import UserError

_FOUR = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}


_TOUCH_FREED_MEMORY = """
import ctypes, resource, threading
from experiments.lib import devices, workdir
devices.keep_memory()
libc, size = ctypes.CDLL(None), 1 << 26
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(size)
        libc.memset(block, 1, size)
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=faults)  # as XLA's, which glibc gives other arenas
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_freed_memory_is_kept_for_the_next_step():
    program = [sys.executable, "-c", _TOUCH_FREED_MEMORY]
    faults = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert int(faults) < 100  # of the 16,384 pages


def test_the_mesh_has_every_device_in_order():
    mesh = devices.make_mesh()
    assert mesh.axis_names == ("data", "fsdp")
    assert list(mesh.devices.flat) == jax.devices()


def test_a_batch_is_split_over_the_devices():
    mesh = devices.make_mesh()
    batch = devices.global_batch(mesh, {"image": np.arange(16, dtype=np.uint8)})["image"]
    assert [shard.data.tolist() for shard in batch.addressable_shards] == [
        [2 * i, 2 * i + 1] for i in range(8)
    ]


_SLURM_TASK = {
    "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_PROCESS_ID": "0"}, "JAX_PROCESS_ID set without JAX_COORDINATOR_ADDRESS, JAX_NUM_PR"),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID=2, JAX_NUM_PROCESSES=2: expected integers 0 <= id < number",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "x", "JAX_PROCESS_ID": "0"},
            "JAX_PROCESS_ID=0, JAX_NUM_PROCESSES=x: expected integers",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "JAX_COORDINATOR_ADDRESS=a: expected host:port",
        ),
        (
            {"SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"},
            "SLURM_STEP_NUM_TASKS=2 without SLURM_STEP_NODELIST, SLURM_PROCID, SLURM_LOCALID: "
            "expected a process that srun or mpirun started; unset SLURM_STEP_NUM_TASKS to run one",
        ),
        (
            {**_SLURM_TASK, "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "2"},
            "SLURM_STEP_NUM_TASKS=4, SLURM_NTASKS=2: expected equal numbers",
        ),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS=two: expected a number"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2 without OMPI_COMM_WORLD_RANK"),
    ],
)
def test_a_cluster_that_is_half_described(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        devices.start()


def test_what_jax_refuses_is_one_line(monkeypatch):
    def refuse():
        raise RuntimeError("Barrier timed out\n  1/2 tasks")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    for name, value in {**_SLURM_TASK, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="not be joined: Barrier timed out 1/2 tasks"):
        devices.start()


def test_libtpu_on_a_machine_without_a_tpu_is_no_cluster(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "libtpu")
    assert jax.devices()  # as in a session that has computed before, where JAX refuses to join
    devices.start()
    assert not jax.distributed.is_initialized()


def _by_hand(port, index):
    return {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }


def _by_slurm(port, index):
    return {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index),
        "JAX_COORDINATOR_PORT": str(port),
    }  # fmt: skip


def _start_two(start, cluster, *flags):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [start(*flags, **_FOUR, **cluster(port, index)) for index in range(2)]


def _finish(programs, codes=(0, 0)):
    said = [program.communicate() for program in programs]
    assert tuple(program.returncode for program in programs) == codes, said
    return said


@pytest.mark.parametrize("cluster", [_by_hand, _by_slurm])
def test_two_processes_compute_what_one_does(whole, start, outcome, tmp_path, cluster):
    said = _finish(_start_two(start, cluster, "--workdir", tmp_path / "run", "--steps", 20))
    assert "8 x cpu" in said[0][0]
    assert "toy" not in said[1][0]  # only the first process speaks
    lines = outcome(tmp_path / "run")[0]
    others = [line for line in outcome(whole)[0] if line["step"] <= 20]
    assert [line.keys() for line in lines] == [line.keys() for line in others]
    for line, other in zip(lines, others, strict=True):
        np.testing.assert_allclose(list(line.values()), list(other.values()), rtol=1e-5)


def test_two_processes_are_refused_together(start, tmp_path):
    """Only one of them has tried the lock, and none waits for the other."""
    with workdir.locked(tmp_path):
        programs = _start_two(start, _by_hand, "--workdir", tmp_path)
        said = [program.communicate()[1].splitlines() for program in programs]
    assert [program.returncode for program in programs] == [2, 2], said
    line = f"error: --workdir {tmp_path}: process {os.getpid()} on {socket.gethostname()} is tr"
    assert said[0][-1] == said[1][-1]
    assert said[0][-1].startswith(line)
    assert len(said[1]) == 1  # the first process may have told before what it was doing
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGTERM, (143, 143)), (signal.SIGINT, (143, 130))]
)
def test_two_processes_stop_after_the_same_step(start, outcome, tmp_path, number, codes):
    folder = tmp_path / "run"
    flags = ("--workdir", folder, "--steps", 1500, "--eval-every", 0, "--checkpoint-every", 0)
    programs = _start_two(start, _by_hand, *flags)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert all(program.poll() is None for program in programs)
        time.sleep(0.01)
    programs[1].send_signal(number)  # one is told, both stop
    assert "stopped; the same command continues" in _finish(programs, codes)[0][0]
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert 0 < int(checkpoint.name) < 1500
    short = ("--steps", int(checkpoint.name) + 30)
    said = _finish(_start_two(start, _by_hand, *flags, *short))
    assert f"continuing after step {checkpoint.name}" in said[0][1]
    steps = [line["step"] for line in outcome(folder)[0] if "train/loss" in line]
    assert steps == list(range(1, int(checkpoint.name) + 31))
    assert json.loads((folder / "summary.json").read_text())["device"] == "8 x cpu"
