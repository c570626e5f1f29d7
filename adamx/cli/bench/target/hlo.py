# SPDX-License-Identifier: Apache-2.0
"""Reads the text of a compiled program: its kernels, and the bytes that each moves."""

import math
import re
from typing import NamedTuple

BYTES = {
    **dict.fromkeys(("s4", "u4"), 0.5),
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
NO_KERNEL = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"}
ON_CHIP = re.compile(r"S\([1-9]")  # a memory space of a TPU core: no traffic to the main memory

INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)")
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")


class Array(NamedTuple):
    """One array of a program: its elements, and its bytes in the accelerator's main memory."""

    elements: int
    traffic: float


class Kernel(NamedTuple):
    """One instruction that runs: a kernel, or a copy between memories."""

    name: str
    is_copy: bool
    largest: int
    """Elements of the largest array that it reads or writes."""
    read: float
    written: float
    cycles: int | None
    """The compiler's estimate, where it gives one (TPUs)."""

    @property
    def moved(self) -> float:
        """Bytes between the chip and its main memory."""
        return self.read + self.written


def kernels(program: str) -> list[Kernel]:
    """The instructions of the program's entry computation that run, in their order."""
    entry = re.sub(r"/\*.*?\*/", "", program[program.index("\nENTRY ") :])
    arrays: dict[str, list[Array]] = {}
    sources: dict[str, list[Array]] = {}
    found = []
    for line in entry.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        name, shape, op, rest = match.groups()
        arrays[name] = _arrays(shape)
        names = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
        operands = [array for operand in names for array in arrays.get(operand, [])]
        if op.endswith("-start"):
            sources[name] = operands
        elif op.endswith("-done"):
            found.append(_copy(name, sources[names[0]], arrays[name]))
        elif op not in NO_KERNEL and "ConcatBitcast" not in rest:
            found.append(_kernel(name, operands, arrays[name], line))
    return found


def _kernel(name: str, operands: list[Array], results: list[Array], line: str) -> Kernel:
    cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
    return Kernel(
        name,
        False,
        max(array.elements for array in [*operands, *results]),
        sum(array.traffic for array in operands),
        sum(array.traffic for array in results),
        int(cycles[1]) if cycles else None,
    )


def _copy(name: str, sources: list[Array], results: list[Array]) -> Kernel:
    """A copy of `results`, which may be only a part of the source."""
    size = sum(array.elements for array in results)
    read = sum(size * array.traffic / max(1, array.elements) for array in sources)
    return Kernel(name, True, size, read, sum(array.traffic for array in results), None)


def _arrays(shape: str) -> list[Array]:
    found = []
    for dtype, dimensions, layout in ARRAY.findall(shape):
        if dtype in BYTES:
            elements = math.prod(int(d) for d in dimensions.split(",") if d)
            found.append(Array(elements, 0 if ON_CHIP.search(layout) else elements * BYTES[dtype]))
    return found
