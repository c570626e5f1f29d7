# SPDX-License-Identifier: Apache-2.0
"""The protocol of the comparison, as functions of the rows so far: which run is next, what counts.

Every entrant gets the same grid of learning rates, in factors of 2. It is tuned with a few seeds,
and judged by more seeds at its own best rate. Then its largest rate that still trains is sought,
to a factor of sqrt(2).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from notebooks.small_states.results import Entrant, Row
from notebooks.small_states.workloads import Workload

Run = tuple[float, int]


def next_runs(
    workload: Workload,
    entrant: Entrant,
    rows: Sequence[Row],
    tune_seeds: int,
    seeds: int,
    stages: Sequence[str],
) -> list[Run]:
    """The `(rate, seed)` pairs that can be told now and are still missing; none when all is done.

    Ask again once they are run: the best rate is known only after the grid.
    """
    mine = _of(workload, entrant, rows)
    done = {(r.rate, r.seed) for r in mine}
    for stage in _stages(workload, mine, rows, tune_seeds, seeds, stages):
        missing = [run for run in stage if run not in done]
        if missing:
            return missing
    return []


def best_rate(rows: Sequence[Row]) -> float:
    """The rate of the lowest mean validation loss among one entrant's rows on one workload.

    The mean is over the seeds that every rate has, so that more seeds at one rate favour nobody.
    """
    rates = sorted({r.rate for r in rows})
    shared = set.intersection(*({r.seed for r in rows if r.rate == rate} for rate in rates))
    means = [
        np.mean([_or_inf(r.val_loss) for r in rows if r.rate == x and r.seed in shared])
        for x in rates
    ]
    return rates[int(np.argmin(means))]


def trains(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a run made nine tenths of the way from its start to the workload's best loss.

    Half-way would not do: a transformer that does no more than count bytes is half-way.
    """
    best = min(_or_inf(r.val_loss) for r in rows if r.workload == row.workload)
    return _or_inf(row.val_loss) <= best + 0.1 * (row.start_loss - best)


def largest_rate(mine: Sequence[Row], rows: Sequence[Row]) -> float:
    """The largest rate at which every seed of an entrant trains; 0 where there is none.

    Args:
      mine: the entrant's rows on one workload.
      rows: all rows, for the workload's best loss.
    """
    rates = {r.rate for r in mine}
    good = [x for x in rates if all(trains(r, rows) for r in mine if r.rate == x)]
    return max(good, default=0.0)


def _stages(
    workload: Workload,
    mine: Sequence[Row],
    rows: Sequence[Row],
    tune_seeds: int,
    seeds: int,
    stages: Sequence[str],
) -> Iterator[list[Run]]:
    """The runs of one stage after the other; each is told once those before it are in `mine`."""
    grid = [_rounded(x) for x in workload.rates]
    yield [(rate, seed) for rate in grid for seed in range(tune_seeds)]
    if "final" in stages:
        best = best_rate([r for r in mine if r.rate in grid])
        yield [(best, seed) for seed in range(seeds)]
    if "edge" in stages:
        tuning = [r for r in mine if r.seed < tune_seeds]
        edge = largest_rate([r for r in tuning if r.rate in _doubled(grid)], rows)
        while edge >= max(grid):  # beyond the grid's end, in the same factors
            yield [(_rounded(2 * edge), seed) for seed in range(tune_seeds)]
            if largest_rate([r for r in tuning if r.rate == _rounded(2 * edge)], rows) == 0:
                break
            edge = _rounded(2 * edge)
        if edge:
            yield [(_rounded(edge * math.sqrt(2)), seed) for seed in range(tune_seeds)]


def _doubled(grid: Sequence[float]) -> set[float]:
    return {_rounded(grid[0] * 2**k) for k in range(len(grid) + 8)}


def _of(workload: Workload, entrant: Entrant, rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.workload == workload.name and r.entrant == entrant]


def _rounded(rate: float) -> float:
    """A rate as the CSV holds it."""
    return float(f"{rate:.7g}")


def _or_inf(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
