# SPDX-License-Identifier: Apache-2.0
"""The protocol, as a function of the rows so far: which runs are next.

Every entrant gets the same budget: seven learning rates in factors of 2 around its own middle at a
decay of 0.1, then two other decays at the best of them, with two tuning seeds each. Where the best
rate is an end of the grid, the grid grows there, at most twice. The best pair is then judged on
five seeds that tuning never saw.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from notebooks.modern_family.results import Row

SPAN, DECAYS, FIRST_DECAY = 3, (0.0, 0.1, 0.4), 0.1
TUNING, JUDGES = (0, 1), (10, 11, 12, 13, 14)
GROWS = 2

Run = tuple[float, float, int]


def next_runs(middle: float, rows: Sequence[Row]) -> list[Run]:
    """The `(rate, decay, seed)` that can be told now and are still missing; none when all is done.

    Args:
      middle: the rate in the middle of the grid.
      rows: those of one entrant on one workload.
    """
    done = {(row.rate, row.decay, row.seed) for row in rows}
    for stage in _stages(middle, rows):
        missing = [run for run in stage if run not in done]
        if missing:
            return missing
    return []


def best(rows: Sequence[Row]) -> tuple[float, float]:
    """The rate and decay of the lowest mean validation loss over the tuning seeds."""
    tuned = [row for row in rows if row.seed in TUNING]
    pairs = sorted({(row.rate, row.decay) for row in tuned})
    return pairs[int(np.argmin([_mean(tuned, *pair) for pair in pairs]))]


def on_edge(rows: Sequence[Row]) -> bool:
    """Whether the best rate is an end of the grid of rates at the first decay."""
    rates = sorted({row.rate for row in rows if row.decay == FIRST_DECAY})
    return best(rows)[0] in (rates[0], rates[-1])


def judged(rows: Sequence[Row]) -> list[float]:
    """The validation losses of the best pair on the judging seeds."""
    pair = best(rows)
    return [row.loss for row in rows if (row.rate, row.decay) == pair and row.seed in JUDGES]


def _stages(middle: float, rows: Sequence[Row]) -> Iterator[list[Run]]:
    rates = [rounded(middle * 2.0**k) for k in range(-SPAN, SPAN + 1)]
    yield _tuning(rates, [FIRST_DECAY])
    for _ in range(GROWS):
        first = [row for row in rows if row.decay == FIRST_DECAY]
        rate, _ = best([row for row in first if row.rate in rates])
        if rate == rates[-1]:
            rates.append(rounded(2 * rate))
        elif rate == rates[0]:
            rates.insert(0, rounded(rate / 2))
        yield _tuning(rates, [FIRST_DECAY])
    rate, _ = best([row for row in rows if row.decay == FIRST_DECAY])
    yield _tuning([rate], DECAYS)
    pair = best(rows)
    yield [(*pair, seed) for seed in JUDGES]


def _tuning(rates: Sequence[float], decays: Sequence[float]) -> list[Run]:
    return [(rate, decay, seed) for rate in rates for decay in decays for seed in TUNING]


def _mean(rows: Sequence[Row], rate: float, decay: float) -> float:
    losses = [row.loss for row in rows if (row.rate, row.decay) == (rate, decay)]
    return float(np.mean([x if math.isfinite(x) else math.inf for x in losses]))


def rounded(rate: float) -> float:
    """A rate as the CSV holds it."""
    return float(f"{rate:.5g}")
