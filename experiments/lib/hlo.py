"""The optimized HLO text of a program: its computations, and how often each of them runs."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of HLO."""

    name: str
    opcode: str
    type: str  # of the result, with layouts
    operands: tuple[str, ...]  # names
    text: str  # the whole line


Computation = dict[str, Instruction]


class Runs(NamedTuple):
    """How a module runs."""

    times: dict[str, int]  # of each computation, in one run of the program
    fused: set[str]  # computations that are part of one instruction of another
    unknown_loops: int  # loops whose length the text does not tell; they count as one iteration


def parse(text: str) -> dict[str, Computation]:
    """Reads the computations of a module, in the order of the text: callees come first.

    Args:
      text: as `compiled.as_text()` gives it.

    Returns:
      name of a computation -> name of an instruction -> instruction; the entry is called "ENTRY".
    """
    module: dict[str, Computation] = {}
    for line in text.splitlines():
        if line.endswith("{") and line.startswith(("%", "ENTRY")):
            name = "ENTRY" if line.startswith("ENTRY") else _NAME.findall(line)[0]
            computation = module.setdefault(name, {})
        elif module and (found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)):
            rest = line[found.end() :]
            end = _closing(rest) if rest.startswith("(") else rest.find(" ")
            opcode, _, tail = rest[end:].strip().partition("(")
            operands = tail[: _closing("(" + tail) - 1]
            names = () if opcode in {"parameter", "constant"} else tuple(_NAME.findall(operands))
            computation[found[1]] = Instruction(found[1], opcode, rest[:end], names, line)
    return module


def runs(module: dict[str, Computation]) -> Runs:
    """Follows the calls from the entry; each branch of a conditional counts as taken."""
    times, fused, unknown = {"ENTRY": 1}, set(), 0
    for name in reversed(module):
        for one in module[name].values() if times.get(name) else ():
            repeats = times[name]
            if one.opcode == "while":
                length = _trip_count(module, one)
                unknown += length is None
                repeats *= 1 if length is None else length
            for callee in _callees(one):
                times[callee] = times.get(callee, 0) + repeats
                if name in fused or one.opcode in {"fusion", "async-start"}:
                    fused.add(callee)
    return Runs(times, fused, unknown)


def arrays(text: str) -> Iterator[tuple[int, list[int], bool]]:
    """Yields (bits of an element, shape, whether it is in the main memory) per array of a type."""
    for kind, shape, layout in _ARRAY.findall(text):
        width = re.search(r"\d+", kind)
        bits = 8 if kind == "pred" else int(width[0]) if width else 0
        space = re.search(r"S\((\d+)\)", layout)
        yield bits, [int(d) for d in shape.split(",") if d], not space or space[1] == "0"


def size(text: str, *, main_memory: bool = False) -> int:
    """Bytes of a type; with `main_memory` only those outside a chip's scratch memory."""
    found = arrays(text)
    return sum(b * math.prod(shape) for b, shape, main in found if main or not main_memory) // 8


def _closing(text: str) -> int:
    """The place behind the parenthesis that closes the first one."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    return len(text)


def _callees(one: Instruction) -> list[str]:
    if one.opcode in {"async-update", "async-done"}:  # they name what async-start has called
        return []
    keys = "calls|body|condition|branch_computations|true_computation|false_computation"
    if one.opcode == "call":
        keys += "|to_apply"  # elsewhere it is a scalar function, such as the sum of a reduction
    lists = re.findall(rf"\b(?:{keys})=(\{{[^}}]*\}}|%[\w.\-]+)", one.text)
    return [name for names in lists for name in _NAME.findall(names)]


def _trip_count(module: dict[str, Computation], loop: Instruction) -> int | None:
    """Iterations of a `while`: annotated, or from the condition `counter < constant`.

    Such a counter is taken to start at zero, as that of `lax.scan` does.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text):
        return int(known[1])
    condition = re.search(r"condition=%([\w.\-]+)", loop.text)
    lines = list(module.get(condition[1], {}).values()) if condition else []
    bounds = [
        re.search(r"constant\((\d+)\)", one.text) for one in lines if one.opcode == "constant"
    ]
    compared = [one for one in lines if one.opcode == "compare" and "direction=LT" in one.text]
    if len(compared) == 1 and len(bounds) == 1 and bounds[0]:
        return int(bounds[0][1])
    return None
