"""Compiles an experiment for a TPU slice without one, and tells what the slice would need.

    python -m experiments.rehearse glow --topology v5e:16x16
    python -m experiments.rehearse gan --topology v5p:4x4x8 --width 64 --batch-size 4096

All other flags are the experiment's own. Nothing runs: libtpu, the compiler of a TPU machine (pip
install -e '.[experiments,tpu]'), compiles the training step and the evaluation. The memory is the
compiler's plan; arithmetic, traffic and exchanges are counted from the compiled program; times are
predictions from the chip's published peaks, not measurements.
"""

import dataclasses
import importlib
import importlib.util
import sys
from typing import Any

import tyro

from experiments.lib import devices, flags, rehearsal
from experiments.lib.errors import UserError
from experiments.lib.launch import as_program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """What to compile, and for what."""

    experiment: tyro.conf.Positional[str]
    """Name of the experiment."""
    topology: str
    """Kind and grid of the chips: v4:2x2x1, v5e:16x16, v5p:4x4x8, v6e:2x4."""


def main() -> None:
    """Reads the command line, compiles, prints."""
    with as_program():
        names = [argument for argument in sys.argv[1:2] if not argument.startswith("-")]
        module: Any = experiment(names[0]) if names else None
        config_type = with_flags(module.Config) if names else Slice
        config: Any = flags.parse(config_type, "python -m experiments.rehearse", __doc__)
        if not module:
            raise UserError("expected the name of the experiment first")
        devices.keep_memory()
        rehearsal.rehearse(config.experiment, config.topology, config, module.build)


def experiment(name: str):
    """The module of an experiment.

    Raises:
      UserError: there is none of this name.
    """
    found = name.isidentifier() and importlib.util.find_spec(f"experiments.{name}")
    module = importlib.import_module(f"experiments.{name}") if found else None
    if not hasattr(module, "build"):
        raise UserError(f"{name}: no such experiment; python -m experiments lists them")
    return module


def with_flags(config_type: type) -> type:
    """The config of an experiment with the fields of `Slice`."""
    return dataclasses.make_dataclass("Config", [], bases=(Slice, config_type), frozen=True)


if __name__ == "__main__":
    main()
