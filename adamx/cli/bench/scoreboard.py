# SPDX-License-Identifier: Apache-2.0
"""The samples of a contest as a table: medians, and ratios to Optax."""

import math
from collections.abc import Sequence

from adamx.cli.bench.contest import Samples
from adamx.cli.bench.timing import quartiles, ratios
from adamx.core.tables import as_text

REFERENCE = "optax"
UNITS = {
    "equations": (1, ""),
    "equations per leaf": (1, ""),
    "equations in all": (1, ""),
    "trace": (1e3, " [ms]"),
    "lower": (1e3, " [ms]"),
    "trace + lower": (1e3, " [ms]"),
    "compile": (1e3, " [ms]"),
    "jitted step": (1e3, " [ms]"),
    "bandwidth": (1, " [of a pass]"),
    "update, apply": (1e3, " [ms]"),
    "eager update": (1e3, " [ms]"),
    "peak temporary": (1e-6, " [MB]"),
}
"""Every measure in the order of the table: (factor for its samples, unit)."""
NOISY = ("jitted step", "update, apply", "eager update")
FEW = 3  # samples of which quartiles would say nothing
WIDTH = 80


def scoreboard(samples: Samples) -> tuple[list[str], list[list[str]]]:
    """The header and the rows; all but Optax have a second column, the ratio to Optax."""
    header = ["", REFERENCE]
    for name in samples:
        if name != REFERENCE:
            header += [name, f"/ {REFERENCE}"]
    return header, [_row(samples, measure) for measure in UNITS]


def stacked(header: list[str], rows: list[list[str]]) -> str:
    """The scoreboard as text, in as many tables below each other as 80 columns take."""
    pairs = [range(i, i + 2) for i in range(2, len(header), 2)]
    tables, columns = [], [0, 1]
    for pair in pairs:
        wider = [*columns, *pair]
        if len(columns) > 1 and _width(_chosen(wider, header, rows)) > WIDTH:
            tables.append(columns)
            wider = [0, *pair]
        columns = wider
    return "\n\n".join(as_text(*_chosen(c, header, rows)) for c in [*tables, columns])


def _chosen(
    columns: list[int], header: list[str], rows: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    return [header[i] for i in columns], [[row[i] for i in columns] for row in rows]


def _width(table: tuple[list[str], list[list[str]]]) -> int:
    return len(as_text(*table).splitlines()[1])


def _row(samples: Samples, measure: str) -> list[str]:
    scale, unit = UNITS[measure]
    reference = samples[REFERENCE][measure]
    cells = [measure + unit, _figure(quartiles(reference)[1] * scale)]
    for name, measures in samples.items():
        if name == REFERENCE:
            continue
        if measure in measures:
            middle = quartiles(measures[measure])[1]
            cells += [_figure(middle * scale), _ratio(measures[measure], reference, measure)]
        else:
            cells += ["", ""]
    return cells


def _ratio(ours: Sequence[float], theirs: Sequence[float], measure: str) -> str:
    low, middle, high = quartiles(ratios(ours, theirs))
    if math.isnan(middle):
        return ""
    spread = f" ({low:.2f} to {high:.2f})" if measure in NOISY and len(ours) >= FEW else ""
    return f"{middle:.2f}{spread}"


def _figure(value: float) -> str:
    """Three significant digits, and always all of those before the decimal point."""
    if math.isnan(value):
        return ""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
