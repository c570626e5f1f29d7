# SPDX-License-Identifier: Apache-2.0
"""The protocol, as a function of the rows so far: which runs are next.

Every entrant gets a grid of seven learning rates, in factors of 2 around its own middle, times
three decays. From the best of them we climb: its neighbours, half and twice the rate and a quarter
and four times the decay, are tried where they were not, and again from the best then, at most four
times. The few best are tried on further seeds, and the best of these is judged on seeds that tuning
never saw. A seed draws the same parameters and batches for every entrant.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from notebooks.modern_family.results import Row

SPAN, DECAYS, CLIMBS = 3, (0.0, 0.1, 0.4), 4
TUNING = {"digits": range(5), "text": range(1)}
FINALISTS = {"digits": 5, "text": 3}
FURTHER = {"digits": range(100, 125), "text": range(1, 2)}
JUDGES = {"digits": range(10, 30), "text": range(10, 15)}

Run = tuple[float, float, int]


def next_runs(workload: str, middle: float, rows: Sequence[Row]) -> list[Run]:
    """The `(rate, decay, seed)` that can be told now and are still missing; none when all is done.

    Args:
      workload: its name.
      middle: the rate in the middle of the grid.
      rows: those of one entrant on one workload.
    """
    done = {(row.rate, row.decay, row.seed): row for row in rows}
    known: list[Row] = []
    for stage in _stages(workload, middle, known):
        missing = [run for run in stage if run not in done]
        if missing:
            return missing
        known += [done[run] for run in stage if done[run] not in known]
    return []


def best(rows: Sequence[Row]) -> tuple[float, float]:
    """The rate and decay of the lowest mean validation loss over the tuning seeds, of the pairs
    that were tried on most."""
    return ranked(rows)[0]


def ranked(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """The pairs that were tried on most seeds of tuning, best first."""
    tried: dict[tuple[float, float], list[float]] = {}
    for row in rows:
        if row.seed not in JUDGES[row.workload]:
            loss = row.loss if math.isfinite(row.loss) else math.inf
            tried.setdefault((row.rate, row.decay), []).append(loss)
    most = max(map(len, tried.values()))
    return sorted(
        (pair for pair in tried if len(tried[pair]) == most),
        key=lambda pair: (np.mean(tried[pair]), pair),
    )


def on_edge(rows: Sequence[Row]) -> bool:
    """Whether the best rate is the lowest or highest that was tried, or the decay the highest."""
    rate, decay = best(rows)
    rates = {row.rate for row in rows}
    return rate in (min(rates), max(rates)) or decay == max(row.decay for row in rows)


def judged(rows: Sequence[Row]) -> list[float]:
    """The validation losses of the best pair on the judging seeds, in their order."""
    pair = best(rows)
    mine = [row for row in rows if (row.rate, row.decay) == pair]
    return [row.loss for row in sorted(mine) if row.seed in JUDGES[row.workload]]


def _stages(workload: str, middle: float, rows: Sequence[Row]) -> Iterator[list[Run]]:
    """Stage by stage; `rows` grows by those of a stage before the next is asked for."""
    rates = [rounded(middle * 2.0**k) for k in range(-SPAN, SPAN + 1)]
    yield _with(itertools.product(rates, DECAYS), TUNING[workload])
    for _ in range(CLIMBS):
        yield _with(_around(*best(rows)), TUNING[workload])
    yield _with(ranked(rows)[: FINALISTS[workload]], FURTHER[workload])
    yield _with([best(rows)], JUDGES[workload])


def _with(pairs: Iterable[tuple[float, float]], seeds: Iterable[int]) -> list[Run]:
    return [(rate, decay, seed) for (rate, decay), seed in itertools.product(pairs, seeds)]


def _around(rate: float, decay: float) -> list[tuple[float, float]]:
    """The neighbours of a pair. Below the least decay above zero there is zero."""
    least = next(filter(None, DECAYS))
    decays = [decay / 4 if decay > least else 0.0, 4 * decay or least]
    return [(rounded(rate * k), decay) for k in (0.5, 2)] + [(rate, rounded(d)) for d in decays]


def rounded(rate: float) -> float:
    """A rate as the CSV holds it."""
    return float(f"{rate:.5g}")
