# SPDX-License-Identifier: Apache-2.0
"""The protocol, as a function of the rows so far: which runs are next.

Every entrant gets the same budget: seven learning rates in factors of 2 around its own middle at a
decay of 0.1, then the decays 0 and 0.4 at the best of them, then half and twice the rate at the
best decay, on tuning seeds. Where the best is an end of what was tried, the grid grows there, at
most twice. The best pair is then judged on seeds that tuning never saw. A seed draws the same
parameters and batches for every entrant.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from notebooks.modern_family.results import Row

SPAN, FIRST_DECAY, DECAYS = 3, 0.1, (0.0, 0.1, 0.4)
TUNING = {"digits": range(5), "text": range(2)}
JUDGES = {"digits": range(10, 30), "text": range(10, 15)}
GROWS = 2

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
    """The rate and decay of the lowest mean validation loss over the tuning seeds."""
    tuned = [row for row in rows if row.seed in TUNING[row.workload]]
    pairs = sorted({(row.rate, row.decay) for row in tuned})
    return pairs[int(np.argmin([_mean(tuned, *pair) for pair in pairs]))]


def on_edge(rows: Sequence[Row]) -> bool:
    """Whether half or twice the best rate was not tried, or no decay above the best."""
    rate, decay = best(rows)
    rates = {row.rate for row in rows if row.decay == decay}
    inside = {rounded(rate / 2), rounded(2 * rate)} <= rates
    return not inside or decay == max(row.decay for row in rows)


def judged(rows: Sequence[Row]) -> list[float]:
    """The validation losses of the best pair on the judging seeds, in their order."""
    pair = best(rows)
    mine = [row for row in rows if (row.rate, row.decay) == pair]
    return [row.loss for row in sorted(mine) if row.seed in JUDGES[row.workload]]


def _stages(workload: str, middle: float, rows: Sequence[Row]) -> Iterator[list[Run]]:
    """Stage by stage; `rows` grows by those of a stage before the next is asked for."""

    def tuning(rates: Sequence[float], decays: Sequence[float]) -> list[Run]:
        return list(itertools.product(rates, decays, TUNING[workload]))

    rates = [rounded(middle * 2.0**k) for k in range(-SPAN, SPAN + 1)]
    yield tuning(rates, [FIRST_DECAY])
    for _ in range(GROWS):
        rate, _ = best(rows)
        if rate == rates[-1]:
            rates.append(rounded(2 * rate))
        elif rate == rates[0]:
            rates.insert(0, rounded(rate / 2))
        yield tuning(rates, [FIRST_DECAY])
    rate, _ = best(rows)
    decays = list(DECAYS)
    yield tuning([rate], decays)
    for _ in range(GROWS):
        if best(rows)[1] == decays[-1]:
            decays.append(rounded(4 * decays[-1]))
        yield tuning([rate], decays)
    for _ in range(GROWS):
        rate, decay = best(rows)
        yield tuning([rounded(rate / 2), rounded(2 * rate)], [decay])
    pair = best(rows)
    yield [(*pair, seed) for seed in JUDGES[workload]]


def _mean(rows: Sequence[Row], rate: float, decay: float) -> float:
    losses = [row.loss for row in rows if (row.rate, row.decay) == (rate, decay)]
    return float(np.mean([x if math.isfinite(x) else math.inf for x in losses]))


def rounded(rate: float) -> float:
    """A rate as the CSV holds it."""
    return float(f"{rate:.5g}")
