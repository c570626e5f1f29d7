# SPDX-License-Identifier: Apache-2.0
"""Compiled steps as a table: figures of one parameter, and ratios to Optax."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from adamx.cli.bench.target.program import Program
from adamx.cli.bench.target.rows import OPTAX
from adamx.cli.bench.timing import quartiles
from adamx.core.tables import as_markdown, as_text


class Row(NamedTuple):
    """A program, Optax's of the same dtype, and Optax's of float32."""

    program: Program
    optax: Program
    float32: Program


Columns = Mapping[str, Callable[[Row], str]]

PROGRAM: Columns = {
    "kernels": lambda row: f"{row.program.large}/{row.program.kernels}",
    "bytes": lambda row: f"{row.program.moved:.2f}",
    "fewest": lambda row: f"{row.program.fewest:.2f}",
    "ratio": lambda row: f"{row.program.moved / row.program.fewest:.2f}",
    "temp.": lambda row: f"{row.program.temporary:.2f}",
    "compile": lambda row: f"{_seconds(row.program):.2f}",
    "/ Optax": lambda row: f"{_seconds(row.program) / _seconds(row.optax):.2f}",
}
GPU: Columns = {
    "instructions": lambda row: _figure(row.program.instructions, 1),
    "busiest": lambda row: row.program.pipe or "",
    "bandwidth": lambda row: _share(row.program),
    "x Optax float32": lambda row: _ratio(_picoseconds(row.float32), _picoseconds(row.program)),
}
TPU: Columns = {
    "cycles": lambda row: _figure(row.program.cycles, 4),
    "x Optax float32": lambda row: _ratio(row.float32.cycles, row.program.cycles),
}


def tables(programs: Mapping[str, Program], float32: Program, markdown: bool) -> str:
    """The table of one dtype's programs, Optax's among them; as text it is two, each within 80
    columns. `float32` is Optax's with float32 parameters."""
    rows = {label: Row(p, programs[OPTAX], float32) for label, p in programs.items()}
    chip = GPU if float32.cycles is None else TPU
    if markdown:
        return as_markdown(*_cells({**PROGRAM, **chip}, rows))
    return "\n\n".join(as_text(*_cells(columns, rows)) for columns in (PROGRAM, chip))


def _cells(columns: Columns, rows: Mapping[str, Row]) -> tuple[list[str], list[list[str]]]:
    cells = [[label, *(cell(row) for cell in columns.values())] for label, row in rows.items()]
    return ["", *columns], cells


def _seconds(program: Program) -> float:
    return quartiles(program.seconds)[1]


def _picoseconds(program: Program) -> float | None:
    """The time below which a GPU cannot take the step, if its instructions are known."""
    if program.memory is None or program.compute is None:
        return None
    return max(program.memory, program.compute)


def _share(program: Program) -> str:
    """How much of the memory's bandwidth the step can use at best."""
    limit = _picoseconds(program)
    return "" if limit is None or program.memory is None else f"{program.memory / limit:.0%}"


def _ratio(theirs: float | None, ours: float | None) -> str:
    return "" if theirs is None or not ours else f"{theirs / ours:.2f}"


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
