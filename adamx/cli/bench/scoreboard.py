# SPDX-License-Identifier: Apache-2.0
"""The samples of a contest as a table: medians, and ratios to Optax."""

import math
from collections.abc import Sequence

from adamx.cli.bench.contest import Samples
from adamx.cli.bench.timing import quartiles, ratios

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
    "eager update": (1e3, " [ms]"),
    "peak temporary": (1e-6, " [MB]"),
}
"""Every measure in the order of the table: (factor for its samples, unit)."""
NOISY = ("jitted step", "eager update")


def scoreboard(samples: Samples) -> tuple[list[str], list[list[str]]]:
    """The header and the rows; all but Optax have a second column, the ratio to Optax."""
    header = ["", REFERENCE]
    for name in samples:
        if name != REFERENCE:
            header += [name, f"/ {REFERENCE}"]
    return header, [_row(samples, measure) for measure in UNITS]


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
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if measure in NOISY else f"{middle:.2f}"


def _figure(value: float) -> str:
    """Three significant digits, and always all of those before the decimal point."""
    if math.isnan(value):
        return ""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
