# SPDX-License-Identifier: Apache-2.0
"""The results of training as Markdown tables: a row per workload, a column per entrant.

    python -m notebooks.small_states.summary

reads every CSV of `training.py` in `results/`, or those named after it. Streams have their own.
"""

import math
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from adamx import landing, storage
from adamx.core.tables import as_markdown
from notebooks.small_states import protocol, results
from notebooks.small_states.results import Entrant, Row
from notebooks.small_states.training import RESULTS
from notebooks.small_states.widths import WIDTHS
from notebooks.small_states.workloads import WORKLOADS, Workload

REFERENCE = Entrant("float32", "nearest", "float32")
SEEDS = 5
BEFORE = " before"  # ends the names of formats whose codes have changed since: their old rows
LEGEND = """\
Final validation loss, mean ± standard deviation over {seeds} or more seeds at the entrant's best
learning rate; after `to`, the largest rate at which every seed still trains. `…`: some runs are
missing."""


def main(paths: Sequence[str] | None = None) -> None:
    """Prints the tables of the CSVs named on the command line."""
    rows = runs([pathlib.Path(p) for p in paths or sys.argv[1:]])
    print("\n\n".join([*tables(rows), LEGEND.format(seeds=SEEDS)]))


def runs(paths: Sequence[pathlib.Path] = ()) -> list[Row]:
    """The rows of these files, or of all in `results/` that hold training runs."""
    paths = paths or sorted(RESULTS.glob("*.csv"))
    header = ",".join(Row._fields)
    return results.read([p for p in paths if p.read_text().partition("\n")[0] == header])


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """One table of the formats, one of codes of other widths, one of the landings of bfloat16
    parameters."""
    order = {name: i for i, name in enumerate((*storage.NAMED, *WIDTHS, *landing.NAMED))}
    found = sorted(
        {r.entrant for r in rows}, key=lambda e: (order[current(e.format)], order[e.landing])
    )
    formats = [e for e in found if e.param_dtype == "float32"]
    landings = [e for e in found if e.param_dtype != "float32"]
    for title, name, entrants in (
        ("moments", lambda e: e.format, [e for e in formats if current(e.format) in storage.NAMED]),
        ("bits of each moment", lambda e: e.format, [e for e in formats if e.format in WIDTHS]),
        ("bfloat16 parameters", lambda e: e.landing, landings),
    ):
        lines = [
            [workload.name, *(cell(workload, e, rows) for e in entrants)]
            for workload in WORKLOADS.values()
            if any(of(workload, e, rows) for e in entrants)
        ]
        if lines:
            yield as_markdown([title, *map(name, entrants)], lines)


def current(name: str) -> str:
    """The name of a format without what marks its old rows."""
    return name.removesuffix(BEFORE)


def cell(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> str:
    """What one entrant reached on one workload."""
    mine = of(workload, entrant, rows)
    if not mine:
        return ""
    losses, rate = finals(workload, entrant, rows), best_rate(workload, entrant, rows)
    text = f"{plus_minus(losses)} at {rate:.2g}"
    if not finished(workload, entrant, rows):
        return f"{text} …"
    if entrant.param_dtype != "float32":  # a landing's edge is not sought
        return text
    return f"{text}, to {protocol.largest_rate(mine, rows):.2g}"


def of(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> list[Row]:
    """An entrant's rows on one workload."""
    return [r for r in rows if r.workload == workload.name and r.entrant == entrant]


def finals(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> list[float]:
    """The validation losses of all seeds at the best rate; none where there are no rows."""
    best = best_rate(workload, entrant, rows)
    return [r.val_loss for r in of(workload, entrant, rows) if r.rate == best]


def best_rate(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> float | None:
    """The best rate of the grid, where an entrant ran on it; rates beside it have fewer seeds."""
    mine = of(workload, entrant, rows)
    mine = [r for r in mine if r.rate in workload.rates] or mine
    return protocol.best_rate(mine) if mine else None


def plus_minus(losses: Sequence[float]) -> str:
    """Mean ± standard deviation, to two digits of the latter."""
    if len(losses) < 2 or not 0 < np.std(losses) < np.inf:
        return f"{np.mean(losses):.4g}"
    mean, spread = np.mean(losses), np.std(losses, ddof=1)
    power = math.floor(math.log10(mean)) if 0 < mean < 0.01 else 0
    mean, spread = mean / 10.0**power, spread / 10.0**power
    digits = max(0, 1 - math.floor(math.log10(spread)))
    text = f"{mean:.{digits}f} ± {spread:.{digits}f}"
    return f"({text})e{power}" if power else text


def finished(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> bool:
    """Whether an entrant has all the runs that the protocol asks for, or all at one given rate.

    Its rivals say with how many seeds the grid is tuned: all have as many.
    """
    mine = of(workload, entrant, rows)
    if entrant.param_dtype != "float32" and len({r.rate for r in mine}) == 1:
        return len(mine) >= SEEDS
    tuned = max([2, *(_tuned(workload, rival, rows) for rival in {r.entrant for r in rows})])
    stages = ("final", "edge") if entrant.param_dtype == "float32" else ("final",)
    return not protocol.next_runs(workload, entrant, rows, tuned, SEEDS, stages)


def _tuned(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> int:
    """How many seeds every rate of the grid has."""
    tried = Counter(r.rate for r in of(workload, entrant, rows))
    return min(tried[rate] for rate in workload.rates)


if __name__ == "__main__":
    main()
