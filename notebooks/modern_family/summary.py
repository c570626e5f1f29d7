# SPDX-License-Identifier: Apache-2.0
"""The results as one Markdown table, best first.

python -m notebooks.modern_family.summary
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from adamx.core.tables import as_markdown
from notebooks.modern_family import costs, protocol, results
from notebooks.modern_family.costs import Cost
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS
from notebooks.modern_family.results import Row
from notebooks.modern_family.training import RESULTS

REFERENCE = "adamw"
HEADER = ["optimizer", "text", "beside AdamW", "digits", "beside AdamW", "bytes", "time"]


class Judged(NamedTuple):
    """What the judging seeds said of one entrant on one workload, at its best rate and decay.

    Attributes:
      loss, spread: mean and standard deviation of the validation loss over the seeds.
      gain: how much lower than AdamW's, in the mean over the seeds that both share.
      within: half the width of the interval that holds the gain with 95%, by Student's t.
      surely: the same for the gains of all entrants at once, by Bonferroni's rule.
      rate, decay: the best pair.
      edge: whether the best might lie beyond what was tried.
    """

    loss: float
    spread: float
    gain: float
    within: float
    surely: float
    rate: float
    decay: float
    edge: bool

    @property
    def verdict(self) -> int:
        """1 where AdamW is beaten, -1 where it is not reached, 0 where the seeds cannot tell,
        with 95% for all entrants at once."""
        if math.isnan(self.gain):
            return -1
        return int(np.sign(self.gain)) if abs(self.gain) > self.surely else 0


def main() -> None:
    """Prints the table of the CSVs in `results/`."""
    print(table(results.read(RESULTS / "runs.csv"), costs.read()))


def table(rows: Sequence[Row], costs: Mapping[str, Cost]) -> str:
    """A row per entrant, by its loss on text."""
    found = {name: [judged(rows, on, name) for on in ("text", "digits")] for name in ENTRANTS}
    order = sorted(found, key=lambda name: _last_if_nan(found[name][0].loss))
    return as_markdown(HEADER, [list(_cells(name, found[name], costs[name])) for name in order])


def judged(rows: Sequence[Row], workload: str, entrant: str) -> Judged:
    """One entrant on one workload."""
    mine, theirs = (of(rows, workload, name) for name in (entrant, REFERENCE))
    losses = np.array(protocol.judged(mine))
    gains = np.array(protocol.judged(theirs)) - losses
    return Judged(
        float(np.mean(losses)),
        float(np.std(losses, ddof=1)),
        float(np.mean(gains)),
        _half_width(gains, 0.05),
        _half_width(gains, 0.05 / (len(ENTRANTS) - 1)),
        *protocol.best(mine),
        protocol.on_edge(mine),
    )


def of(rows: Sequence[Row], workload: str, entrant: str) -> list[Row]:
    """An entrant's rows on one workload."""
    return [row for row in rows if (row.workload, row.entrant) == (workload, entrant)]


def finished(rows: Sequence[Row]) -> bool:
    """Whether every entrant has all the runs that the protocol asks for."""
    return not any(
        protocol.next_runs(workload, entrant.middle[workload], of(rows, workload, name))
        for workload in WORKLOADS
        for name, entrant in ENTRANTS.items()
    )


def _cells(name: str, found: Sequence[Judged], cost: Cost) -> Iterator[str]:
    yield name
    for one, digits in zip(found, (3, 4), strict=True):
        edge = " at an edge" if one.edge else ""
        yield f"{one.loss:.{digits}f} ± {one.spread:.{digits}f}{edge}"
        verdict = {1: " **better**", 0: "", -1: " worse"}[one.verdict]
        beside = f"{-one.gain:+.{digits}f} ± {one.within:.{digits}f}{verdict}"
        yield "" if name == REFERENCE else beside
    yield f"{cost.bytes:.2g}"
    yield f"{float(f'{cost.time:.2g}'):g} ×"


def _last_if_nan(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def _half_width(gains: np.ndarray, outside: float) -> float:
    error = np.std(gains, ddof=1) / math.sqrt(len(gains))
    return float(error * stats.t.ppf(1 - outside / 2, len(gains) - 1))


if __name__ == "__main__":
    main()
