"""Processes, the mesh of all devices, and how arrays are distributed over it."""

import ctypes
import importlib.util
import math
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.lib.errors import UserError

T = TypeVar("T")

_LARGE = 2**14  # numbers in an array that is worth splitting
_CLUSTER = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# The number of processes that srun or mpirun started, and what else it tells each of them.
_LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": (
        "SLURM_JOB_ID",
        "SLURM_STEP_NODELIST",
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
    ),
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


def start() -> None:
    """Connects to the other processes if there are any. Call it before any other use of JAX.

    A TPU pod and a Slurm or Open MPI job are recognised; a cluster made by hand sets in every
    process JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES, JAX_PROCESS_ID.

    Raises:
      UserError: the variables of a cluster are not complete or contradict each other, or the
        other processes do not answer.
    """
    if jax.distributed.is_initialized():
        return
    given = {name: os.environ[name] for name in _CLUSTER if os.environ.get(name)}
    counts = {name: _count(name, "1") for name in _LAUNCHERS}
    if given:
        _join(*_by_hand(given))
    elif max(counts.values()) > 1:
        _check_launched(max(counts, key=lambda name: counts[name]))
        _join()
    elif importlib.util.find_spec("libtpu"):
        try:
            jax.distributed.initialize()
        except ValueError:  # libtpu is installed, but this is no TPU machine
            return
        except RuntimeError:  # JAX has computed before; this is a fault on a TPU only
            if jax.devices()[0].platform == "tpu":
                raise


def _join(*arguments) -> None:
    try:
        jax.distributed.initialize(*arguments)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the processes of this run could not be joined: {reason}") from None


def _count(name: str, default: str) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal():
        raise UserError(f"{name}={value}: expected a number of processes")
    return int(value)


def _check_launched(name: str) -> None:
    """Makes sure that srun or mpirun started this process, and that the numbers agree."""
    count, alone = _count(name, "1"), f"unset {name} to run one process alone"
    missing = [other for other in _LAUNCHERS[name] if other not in os.environ]
    if missing:
        raise UserError(
            f"{name}={count} without {', '.join(missing)}: expected a process that srun or mpirun"
            f" started; {alone}"
        )
    if name == "SLURM_STEP_NUM_TASKS" and _count("SLURM_NTASKS", "1") != count:
        raise UserError(
            f"{name}={count}, SLURM_NTASKS={os.environ['SLURM_NTASKS']}: expected equal numbers,"
            f" as srun sets them; {alone}"
        )


def _by_hand(given: dict[str, str]) -> tuple[str, int, int]:
    missing = [name for name in _CLUSTER if name not in given]
    if missing:
        raise UserError(f"{', '.join(given)} set without {', '.join(missing)}: expected all three")
    address, count, index = (given[name] for name in _CLUSTER)
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"JAX_PROCESS_ID={index}, JAX_NUM_PROCESSES={count}: expected integers 0 <= id < number"
        )
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: expected host:port of process 0")
    return address, int(count), int(index)


def together(action: Callable[[], T]) -> T:
    """Runs an action in all processes; if it fails in one, it fails in all, so that none hangs.

    Raises:
      UserError: that of the first process in which the action raised one.
    """
    if jax.process_count() == 1:
        return action()
    result, fault = None, ""
    try:
        result = action()
    except UserError as error:
        fault = str(error)
    text = np.frombuffer(fault.encode()[:1000].ljust(1000, b"\0"), np.uint8)
    for told in multihost_utils.process_allgather(text):
        if told.any():
            raise UserError(told.tobytes().rstrip(b"\0").decode(errors="replace"))
    return result  # type: ignore[return-value]


def of_first(number: int) -> int:
    """The number that process 0 has; all processes call this."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def keep_memory() -> None:
    """Makes the C library keep freed memory for later requests. Call it before any use of JAX.

    XLA's CPU backend asks for its temporary memory anew in every step. glibc takes so large a block
    from the kernel and gives it back, so that every step first has to fault in each of its pages:
    39,000 in a DCGAN's step at 32x32, counted once by hand. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-8, 1)  # M_ARENA_MAX: other arenas cannot hold large blocks
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD, bytes


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """Two axes, "data" and "fsdp", over all devices of all processes.

    Args:
      fsdp: size of the second axis, among whose devices the state is split.
      devices: those of a described topology; by default the devices that are there.

    Raises:
      UserError: fsdp does not divide the number of devices.
    """
    # Sorted, so that each process holds one contiguous slice of the batch and the order of the
    # examples does not depend on the topology. Auto: the compiler places what the code leaves open.
    found = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(found) % fsdp:
        raise UserError(f"--fsdp {fsdp}: expected a divisor of the {len(found)} devices")
    grid = np.array(found).reshape(-1, fsdp)
    return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def split(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: its first axis over all devices."""
    return NamedSharding(mesh, P(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of an array of which every device holds a full copy."""
    return NamedSharding(mesh, P())


def place(mesh: Mesh, shapes):
    """Decides how a state is distributed over the devices.

    A leaf of `_LARGE` numbers or more is split over "fsdp" along its largest axis that the size of
    "fsdp" divides; every other leaf is replicated.

    Args:
      mesh: all devices.
      shapes: pytree of jax.ShapeDtypeStruct.

    Returns:
      The same pytree, with shardings.
    """
    count = mesh.shape["fsdp"]

    def sharding(shape):
        axes = [axis for axis, size in enumerate(shape) if size % count == 0]
        if count == 1 or not axes or math.prod(shape) < _LARGE:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: shape[axis])
        return NamedSharding(mesh, P(*[None] * largest, "fsdp"))

    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x.shape)), shapes
    )


def local_copy(mesh: Mesh, tree):
    """Full copies of all arrays on the first device of this process. All processes call this."""
    if mesh.shape["fsdp"] > 1:
        tree = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def global_batch(mesh: Mesh, local):
    """Puts a batch on the devices.

    Args:
      mesh: all devices.
      local: pytree of numpy arrays [B / processes, ...], this process's slice of the batch.

    Returns:
      The same pytree of global arrays [B, ...].
    """
    sharding = split(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)


def check_batch(mesh: Mesh, what: str, size: int) -> None:
    """Makes sure that a batch can be split evenly.

    Args:
      mesh: all devices.
      what: the flag, for the message.
      size: examples in the batch.

    Raises:
      UserError: the number of devices does not divide it.
    """
    if size % mesh.size:
        raise UserError(f"{what} {size}: expected a multiple of the {mesh.size} devices")
