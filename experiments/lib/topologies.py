"""TPU slices that are described and not present: their chips, and programs compiled for them.

Compiling needs libtpu, which installs on any Linux machine, and no TPU.
"""

import importlib.util
import os
import re
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from experiments.lib.errors import UserError


class Chip(NamedTuple):
    """What the vendor publishes of one chip."""

    memory: float  # bytes of HBM
    flops: float  # a second, bf16
    bandwidth: float  # of the HBM, bytes a second
    links: float  # bytes a second that it sends over all its links together, without what it gets
    axes: int  # of the grid of chips
    most: int  # chips in the largest slice


# Google Cloud, "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e": docs.cloud.google.com/tpu/docs/v4 (and
# so on). Where they give the bandwidth of the links in both directions together ("bidirectional"
# 400, 1200 and 800 GB/s for v5e, v5p and v6e), half of it stands here, which is also their "all-
# reduce bandwidth per Pod" per chip; of the v4 they give the latter alone, 1.1 PB/s for 4096 chips.
CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1200e9, 1.1e15 / 4096, 3, 4096),
    "v5e": Chip(16 * 2**30, 197e12, 819e9, 200e9, 2, 256),
    "v5p": Chip(95 * 2**30, 459e12, 2765e9, 600e9, 3, 6144),
    "v6e": Chip(32 * 2**30, 918e12, 1638e9, 400e9, 2, 256),
}


def describe(topology: str) -> tuple[Chip, list[Any]]:
    """The chip of a slice, and its devices: one per chip, to build a mesh from and compile for.

    From here on this process computes on its CPU; call it before anything of JAX runs.

    Args:
      topology: kind and grid of the chips, such as v5e:16x16 or v5p:4x4x8.

    Raises:
      UserError: there is no such slice, or libtpu is not installed or in use.
    """
    chip, grid = _parsed(topology)
    if not importlib.util.find_spec("libtpu"):
        raise UserError("libtpu is not installed; expected pip install -e '.[tpu]'")
    jax.config.update("jax_platforms", "cpu")
    # Nothing is on the network, and no TPU is asked for, so several processes may do this at once.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology.replace(":", "-"))
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    options: dict[str, Any] = {"chips_per_host_bounds": (min(2, grid[0]), min(2, grid[1]), 1)}
    if topology.startswith("v4"):
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device, as on v5p
    try:
        return chip, topologies.get_topology_desc(topology, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise UserError(
                "libtpu is in use by another process; expected it to end, or its lock file"
                " (/tmp/libtpu_lockfile) to be gone"
            ) from None
        raise UserError(f"--topology {topology}: {_first_line(error)}") from None


def compiled(function, *arguments) -> tuple[Any, float]:
    """Compiles a jitted function for the devices of the shardings that it was given.

    Args:
      function: from `jax.jit`.
      *arguments: arrays, or jax.ShapeDtypeStruct.

    Returns:
      What `.compile()` gives, and the seconds that lowering and compiling took.

    Raises:
      UserError: it needs more memory than a chip has, or an operation that a TPU does not know.
    """
    began = time.monotonic()
    try:
        program = function.lower(*arguments).compile()
    except (NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise UserError(f"it does not compile for this slice: {_first_line(error)}") from None
    return program, time.monotonic() - began


def _parsed(topology: str) -> tuple[Chip, list[int]]:
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise UserError(
            f"--topology {topology}: expected KIND:SHAPE, such as v5e:16x16 or v5p:4x4x8; the"
            f" kinds are {', '.join(CHIPS)}"
        )
    chip, grid = CHIPS[kind], [int(side) for side in shape.split("x")]
    count = 1
    for side in grid:
        count *= side
    if len(grid) != chip.axes or count > chip.most:
        raise UserError(
            f"--topology {topology}: expected {chip.axes} numbers with a product of at most"
            f" {chip.most}, the chips of the largest {kind} slice"
        )
    return chip, grid


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
