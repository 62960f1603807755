"""What a compiled program needs of each chip: memory, arithmetic, traffic, exchanges with others.

XLA's own cost analysis counts the body of a loop once, however often it runs. These counts come
from the HLO text and multiply the body by the number of iterations.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lib import hlo

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# They move no data: names for data, what is made in registers, and calls that count apart.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
}
_SLICES = {"dynamic-slice", "slice", "gather"}
_ELEMENTWISE = {"add", "subtract", "multiply", "divide"}
_NOT_TRAINED = {"average", "ema", "batch_stats"}  # fields of a state beside the optimizer's


class Memory(NamedTuple):
    """Bytes on each chip."""

    arguments: int
    outputs: int
    in_place: int  # of the outputs, those that take the place of arguments
    temporaries: int
    code: int
    total: int  # of all at once


class Collective(NamedTuple):
    """One exchange between chips."""

    kind: str
    bytes: int  # of the whole arrays
    group: int  # chips that exchange with each other
    times: int  # in one run of the program

    @property
    def sent(self) -> float:
        """Bytes that each chip sends in one run, as on a ring: the least for whole arrays."""
        others = (self.group - 1) / self.group
        share = {"all-reduce": 2 * others, "collective-permute": 1.0}
        return self.times * self.bytes * share.get(self.kind, others)


class Counts(NamedTuple):
    """Per chip, in one run of the program."""

    flops: int  # additions, multiplications and divisions of floating-point numbers
    traffic: int  # bytes read from and written to the main memory
    collectives: list[Collective]
    unknown_loops: int  # loops of a length that the text does not tell, counted as one iteration


def memory(compiled: Any) -> Memory:
    """Reads the compiler's memory plan; `compiled` is what `jit(f).lower(...).compile()` gives."""
    plan = compiled.memory_analysis()
    arguments, outputs = plan.argument_size_in_bytes, plan.output_size_in_bytes
    temporaries, code = plan.temp_size_in_bytes, plan.generated_code_size_in_bytes
    in_place = plan.alias_size_in_bytes
    total = arguments + outputs - in_place + temporaries + code
    return Memory(arguments, outputs, in_place, temporaries, code, total)


def trained_bytes(state: Any) -> int:
    """Bytes of the parameters in a training state, which is those of one gradient of each.

    Parameters are the floating-point arrays outside optax's states, running averages (fields
    called average or ema) and batch statistics; of two or more numbers, as counters may be floats.

    Args:
      state: pytree of arrays or of their shapes.
    """

    def of_optimizer(node):
        return type(node).__module__.startswith(("optax", "jaxgen.optimizers"))

    total = 0
    for path, leaf in jax.tree.leaves_with_path(state, is_leaf=of_optimizer):
        names = {str(getattr(key, "name", getattr(key, "key", ""))) for key in path}
        if of_optimizer(leaf) or names & _NOT_TRAINED or math.prod(leaf.shape) < 2:
            continue
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            total += math.prod(leaf.shape) * leaf.dtype.itemsize
    return total


def count(text: str) -> Counts:
    """Counts a program; `text` is what `compiled.as_text()` gives."""
    module = hlo.parse(text)
    times, fused, unknown = hlo.runs(module)
    partitions = re.search(r"num_partitions=(\d+)", text)
    chips = int(partitions[1]) if partitions else 1
    flops, traffic, collectives = 0, 0, []
    for name, computation in module.items():
        repeats = times.get(name, 0)
        for one in computation.values() if repeats else ():
            flops += repeats * _flops(computation, one)
            if one.opcode.removesuffix("-start") in COLLECTIVES:
                collectives.append(_collective(computation, one, repeats, chips))
            if name not in fused:
                traffic += repeats * _traffic(module, computation, one)
    return Counts(flops, traffic, collectives, unknown)


def _flops(computation: hlo.Computation, one: hlo.Instruction) -> int:
    """A convolution's products with padding, or with the zeros of a dilation, do not count."""
    if one.opcode not in {"dot", "convolution", "reduce", *_ELEMENTWISE}:
        return 0
    if not re.match(r"\(?b?[fc]\d", one.type):
        return 0
    types = (one.type, *(computation[name].type for name in one.operands[:2]))
    output, *inputs = (next(hlo.arrays(text))[1] for text in types)
    if one.opcode in _ELEMENTWISE:
        return math.prod(output)
    left, right = inputs
    if one.opcode == "reduce":
        return math.prod(left)
    if one.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.text)
        axes = [int(d) for d in contracted[1].split(",") if d] if contracted else []
        return 2 * math.prod(output) * math.prod(left[axis] for axis in axes)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    if not labels:
        raise ValueError(f"expected dim_labels in {one.text}")
    of_left, of_right, of_output = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", one.text)
    options = dict(part.split("=") for part in window[1].split()) if window else {}
    products = output[of_output.index("b")] * output[of_output.index("f")]
    products *= right[of_right.index("i")]
    for axis in range(len(of_left) - 2):
        place = str(axis)
        sides = (left[of_left.index(place)], output[of_output.index(place)])
        products *= _positions(*sides, right[of_right.index(place)], options, axis)
    return 2 * products


def _positions(size: int, outputs: int, window: int, options: dict[str, str], axis: int) -> int:
    """Pairs of an output and an element of the window that meet an input, along one axis."""

    def option(name, default):
        return options[name].split("x")[axis] if name in options else default

    before, spread = int(option("pad", "0_0").split("_")[0]), int(option("lhs_dilate", "1"))
    starts = np.arange(outputs)[:, None] * int(option("stride", "1")) - before
    met = starts + np.arange(window) * int(option("rhs_dilate", "1"))
    return int(((met >= 0) & (met <= (size - 1) * spread) & (met % spread == 0)).sum())


def _traffic(module, computation: hlo.Computation, one: hlo.Instruction) -> int:
    """Bytes of the operands and results in the main memory; of a slice, the part alone."""
    types = [computation[name].type for name in one.operands]
    read = [hlo.size(text, main_memory=True) for text in types]
    written = hlo.size(one.type, main_memory=True)
    if one.opcode in _FREE or 'custom_call_target="AllocateBuffer"' in one.text:
        return 0
    if one.opcode.endswith("-start"):  # the result names the operands, too
        return sum(read)
    if one.opcode.endswith("-done"):
        return written
    if one.opcode in _SLICES:
        read = [min(read[0], hlo.size(one.type))]
    elif one.opcode == "dynamic-update-slice":
        read, written = read[1:2], min(written, hlo.size(types[1]))
    elif one.opcode == "fusion":
        inside = module[_called(one)]
        read = [_used(module, inside, place, whole) for place, whole in enumerate(read)]
        written = min(written, _replaced(inside, written))
    return sum(read) + written


def _used(module, inside: hlo.Computation, place: int, whole: int) -> int:
    """Bytes that a fused computation reads of a parameter: slices of it, or the whole."""
    own = {next(one.name for one in inside.values() if f" parameter({place})" in one.text)}
    total = 0
    for one in inside.values():  # operands come before their users
        if not own & set(one.operands):
            continue
        if one.opcode == "bitcast":
            own.add(one.name)
        elif one.opcode in _SLICES and one.operands[0] in own:
            total += hlo.size(one.type)
        elif one.opcode == "fusion":
            nested = module[_called(one)]
            places = [i for i, name in enumerate(one.operands) if name in own]
            total += sum(_used(module, nested, i, whole) for i in places)
        elif one.opcode != "dynamic-update-slice" or one.operands[0] not in own:
            return whole
    return min(total, whole)


def _called(one: hlo.Instruction) -> str:
    """The computation of a fusion."""
    return re.findall(r"calls=%([\w.\-]+)", one.text)[0]


def _replaced(inside: hlo.Computation, written: int) -> int:
    """Bytes that a fused computation writes: of an update in place, the new part alone."""
    updates = [one for one in inside.values() if one.opcode == "dynamic-update-slice"]
    whole = sum(hlo.size(one.type) for one in updates)
    new = sum(hlo.size(inside[one.operands[1]].type) for one in updates)
    return max(written - whole + new, 0)


def _collective(computation, one: hlo.Instruction, times: int, chips: int) -> Collective:
    kind = one.opcode.removesuffix("-start")
    users = {user.opcode for user in computation.values() if one.name in user.operands}
    if kind == "all-reduce" and users == {"dynamic-slice"}:
        kind = "reduce-scatter"  # so a TPU's compiler writes it
    size = sum(hlo.size(computation[name].type) for name in one.operands)
    group = 2 if kind == "collective-permute" else _group(one.text, chips)
    return Collective(kind, size * group if kind == "all-gather" else size, group, times)


def _group(text: str, chips: int) -> int:
    """Chips in a group: of {{0,1},{2,3}}, of [groups,chips]<=[...], or of mesh['x'=4] {'x'}."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        used = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])  # 'x':(1)2 is a part of an axis
        return math.prod(int(part or sizes.get(axis, 1)) for axis, part in used)
    return chips  # {} means all
