"""A rehearsal: an experiment's programs, compiled for chips that are not there, and the report."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from experiments.lib import compiled, devices, topologies
from experiments.lib.batches import form
from experiments.lib.config import RunConfig, flag
from experiments.lib.programs import compile_method


def rehearse(name: str, topology: str, config: RunConfig, build: Callable) -> None:
    """Compiles the training step and the evaluation, and prints what each needs of a chip.

    Args:
      name: of the experiment.
      topology: see `topologies.describe`.
      config: its knobs; batches are raised to multiples of the number of chips.
      build: config -> (data set, `Method`).

    Raises:
      UserError: a flag does not fit, there is no such slice, or something does not compile for it.
    """
    chip, chips = topologies.describe(topology)
    mesh = devices.make_mesh(config.fsdp, chips)
    print(f"{name}, compiled for {topology} (chips: {mesh.size}); nothing runs")
    config = _fitted(config, mesh.size)
    data, method = build(config)
    size = config.batch_size * method.batches_per_step
    first = form(data.train, method.init_batch or size)
    programs = compile_method(config, mesh, method, first)
    number = jax.ShapeDtypeStruct((), np.uint32)
    batch = form(data.train, size)
    program, seconds = topologies.compiled(programs.update, programs.state, batch, number)
    print(f"\ntraining step, {size} examples, compiled in {seconds:.1f} s; per chip:")
    _report(chip, program, compiled.trained_bytes(programs.state))
    if method.evaluate:
        size = config.batch_size
        batch = {**form(data.test, size), "valid": jax.ShapeDtypeStruct((size,), bool)}
        program, seconds = topologies.compiled(programs.measure, programs.state, batch, number)
        print(f"\nevaluation, {size} examples, compiled in {seconds:.1f} s; per chip:")
        _report(chip, program)
    print(
        "\nPredicted times: at the published peaks of the chip, each for one of the three alone,"
        "\nwithout latencies. Nothing was measured."
    )


def decimal(number: float) -> str:
    """A number with three digits and the prefix of its unit: "1.5 M"."""
    place = 0
    while number >= 999.5 and place < 4:
        number, place = number / 1000, place + 1
    return f"{number:.3g} {('', 'k', 'M', 'G', 'T')[place]}"


def binary(size: float) -> str:
    """Bytes with three digits: "1.5 MiB"."""
    place = 0
    while size >= 999.5 and place < 3:
        size, place = size / 1024, place + 1
    return f"{size:.3g} {('B', 'KiB', 'MiB', 'GiB')[place]}"


def _fitted(config, chips: int):
    for field in ("batch_size", "init_batch"):
        size = getattr(config, field, 0)
        if size % chips:
            whole = -(-size // chips) * chips
            print(f"  {flag(field)} {size} is raised to {whole}, a multiple of the chips")
            config = dataclasses.replace(config, **{field: whole})
    return config


def _report(chip: topologies.Chip, program, gradients: int = 0) -> None:
    memory, counts = compiled.memory(program), compiled.count(program.as_text())
    _row("memory", f"{binary(memory.total)} of {binary(chip.memory)}")
    _row("", f"arguments {binary(memory.arguments)}, temporaries {binary(memory.temporaries)},")
    _row("", f"outputs {binary(memory.outputs)} ({binary(memory.in_place)} in place of arguments),")
    _row("", f"code {binary(memory.code)}")
    _row("arithmetic", f"{decimal(counts.flops)}FLOP")
    _row("memory traffic", f"{decimal(counts.traffic)}B")
    for kind in compiled.COLLECTIVES:
        found = [one for one in counts.collectives if one.kind == kind]
        if found:
            total = sum(one.times * one.bytes for one in found)
            _row(kind, f"{sum(one.times for one in found)} x, {decimal(total)}B in all")
    if gradients:
        total = sum(one.times * one.bytes for one in counts.collectives)
        _row("exchanged", f"{decimal(total)}B, {total / gradients:.2f} times the least, which is")
        _row("", f"{decimal(gradients)}B: the gradient of every parameter once")
    if counts.unknown_loops:
        _row("loops", f"{counts.unknown_loops} of unknown length, counted as one iteration")
    times = {
        "arithmetic": counts.flops / chip.flops,
        "memory": counts.traffic / chip.bandwidth,
        "links": sum(one.sent for one in counts.collectives) / chip.links,
    }
    _row("predicted", ", ".join(f"{name} {time * 1e6:.3g} us" for name, time in times.items()))


def _row(name: str, text: str) -> None:
    print(f"  {name:<18}  {text}")
