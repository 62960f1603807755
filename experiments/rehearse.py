"""Compiles an experiment for a TPU slice that is not there, and tells what it would need.

    python -m experiments.rehearse glow --topology v5e:16x16
    python -m experiments.rehearse gan --topology v5p:4x4x8 --width 64 --batch-size 4096

Flags after the experiment's name are the experiment's own. Nothing runs: the training step and the
evaluation are compiled ahead of time by libtpu, the compiler of a TPU machine (pip install -e
'.[tpu]'). The memory is the compiler's plan; arithmetic, traffic and exchanges are counted from the
compiled program; times are predictions from the published peaks of the chip, not measurements.
"""

import argparse
import dataclasses
import importlib
import importlib.util

import jax
import numpy as np

from experiments.lib import compiled, devices, topologies
from experiments.lib.errors import UserError
from experiments.lib.launch import one_line_errors, parse
from experiments.lib.programs import compile_method


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, compiles, prints."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rehearse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", help="of the experiment, as in python -m experiments.NAME")
    parser.add_argument("--topology", required=True, help="chips, such as v5e:16x16 or v5p:4x4x8")
    own, others = parser.parse_known_args(arguments)
    with one_line_errors():
        rehearse(own.name, own.topology, others)


def rehearse(name: str, topology: str, flags: list[str]) -> None:
    """Compiles the training step and the evaluation of an experiment, and prints the report.

    Args:
      name: of the experiment.
      topology: see `topologies.describe`.
      flags: of the experiment.

    Raises:
      UserError: no such experiment, slice or flag, or it does not compile for the slice.
    """
    if not importlib.util.find_spec(f"experiments.{name}"):
        raise UserError(f"{name}: no such experiment; python -m experiments lists them")
    module = importlib.import_module(f"experiments.{name}")
    if not hasattr(module, "build"):
        raise UserError(f"{name}: no experiment; python -m experiments lists them")
    config = parse(module.Config, module.__doc__, flags)
    chip, chips = topologies.describe(topology)
    mesh = devices.make_mesh(config.fsdp, chips)
    print(f"{name} on {topology}, {mesh.size} chips, none of them present")
    config = fitted(config, mesh.size)
    data, method = module.build(config)
    size = config.batch_size * method.batches_per_step
    batch = shapes(data.train, size)
    first = shapes(data.train, method.init_batch or size)
    programs = compile_method(config, mesh, method, first)
    number = jax.ShapeDtypeStruct((), np.uint32)
    program, seconds = topologies.compiled(programs.update, programs.state, batch, number)
    gradients = compiled.trained_bytes(programs.state)
    report("training step", size, program, seconds, chip, gradients)
    if method.evaluate:
        test = shapes(data.test, config.batch_size)
        test["valid"] = jax.ShapeDtypeStruct((config.batch_size,), bool)
        program, seconds = topologies.compiled(programs.measure, programs.state, test, number)
        report("evaluation", config.batch_size, program, seconds, chip)
    print(
        "\nPredicted times: at the published peaks of the chip, each for one of the three alone,"
        "\nwithout latencies. Nothing was measured."
    )


def fitted(config, chips: int):
    """The config with its batches raised to multiples of the number of chips; says so."""
    for field in ("batch_size", "init_batch"):
        size = getattr(config, field, 0)
        if size % chips:
            whole = -(-size // chips) * chips
            print(f"  --{field.replace('_', '-')} {size} is raised to {whole}, for all chips alike")
            config = dataclasses.replace(config, **{field: whole})
    return config


def shapes(split, count: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The form of a batch of `count` examples."""
    one = split[np.arange(1)]
    return {k: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for k, x in one.items()}


def report(what: str, size: int, program, seconds: float, chip, gradients: int = 0) -> None:
    """Prints what a compiled program needs of each chip."""
    memory, counts = compiled.memory(program), compiled.count(program.as_text())
    print(f"\n{what}, {size} examples, compiled in {seconds:.1f} s; per chip:")
    row("memory", f"{binary(memory.total)} of {binary(chip.memory)}")
    row("", f"arguments {binary(memory.arguments)}, temporaries {binary(memory.temporaries)},")
    row("", f"outputs {binary(memory.outputs)} ({binary(memory.in_place)} in place of arguments),")
    row("", f"code {binary(memory.code)}")
    row("arithmetic", f"{decimal(counts.flops)}FLOP")
    row("memory traffic", f"{decimal(counts.traffic)}B")
    for kind in compiled.COLLECTIVES:
        found = [one for one in counts.collectives if one.kind == kind]
        if found:
            total = sum(one.times * one.bytes for one in found)
            row(kind, f"{sum(one.times for one in found)} x, {decimal(total)}B in all")
    total = sum(one.times * one.bytes for one in counts.collectives)
    if gradients:
        row("exchanged", f"{decimal(total)}B; {decimal(gradients)}B is the gradient of every")
        row("", f"parameter once, the least: {total / gradients:.2f} times that")
    if counts.unknown_loops:
        row("loops", f"{counts.unknown_loops} of unknown length, counted as one iteration")
    times = {
        "arithmetic": counts.flops / chip.flops,
        "memory": counts.traffic / chip.bandwidth,
        "links": sum(one.sent for one in counts.collectives) / chip.links,
    }
    row("predicted", ", ".join(f"{name} {time * 1e6:.3g} us" for name, time in times.items()))


def row(name: str, text: str) -> None:
    """Prints one line of the report."""
    print(f"  {name:<18}  {text}")


def binary(size: float) -> str:
    """Bytes with three digits: 1.5 MiB."""
    place = 0
    while size >= 999.5 and place < 3:
        size, place = size / 1024, place + 1
    return f"{size:.3g} {('B', 'KiB', 'MiB', 'GiB')[place]}"


def decimal(number: float) -> str:
    """A number with three digits and the prefix of its unit: "1.5 M"."""
    place = 0
    while number >= 999.5 and place < 4:
        number, place = number / 1000, place + 1
    return f"{number:.3g} {('', 'k', 'M', 'G', 'T')[place]}"


if __name__ == "__main__":
    main()
