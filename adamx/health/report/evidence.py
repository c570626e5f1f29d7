# SPDX-License-Identifier: Apache-2.0
"""What the rules of the doctor judge by: each figure of a group of leaves, over time."""

import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from adamx.health.figures import NAMES
from adamx.health.read import figures_of, read
from adamx.health.scalars import first
from adamx.health.states import ObserveState, nodes

LATELY = 20  # how many of the last observations are recent
ENOUGH = 5  # observations of a history, without which a figure is not judged
EARLY = 20  # steps before which one state is not judged: its moments and biases are too young

Rows = Sequence[Mapping[str, Any]]


class Evidence:
    """The figures of one group of leaves. A figure that is unknown, or too new to judge, is NaN.

    `values` are all observations, oldest first; a figure with fewer than `enough` is not judged.
    """

    def __init__(self, values: Mapping[str, list[float]], enough: int = 1, step: float = math.inf):
        self._values, self._enough, self.step = values, enough, step

    def lately(self, name: str) -> float:
        """The median of the last observations."""
        known = self._known(name)[-LATELY:]
        return statistics.median(known) if known else math.nan

    def last(self, name: str) -> float:
        """The last observation, of a figure that counts: nothing of it can be an accident."""
        return self._values.get(name, [math.nan])[-1]

    def peak(self, name: str) -> float:
        """The largest observation."""
        return max(self._known(name), default=math.nan)

    def early(self, name: str) -> float:
        """The largest of the first observations."""
        return max(self._known(name)[:LATELY], default=math.nan)

    def usual(self, name: str) -> float:
        """The median of all observations."""
        known = self._known(name)
        return statistics.median(known) if known else math.nan

    def grown(self, name: str) -> float:
        """How far the last observations are above the lowest median of as many before."""
        known = self._known(name)
        if len(known) < 2 * self._enough or len(known) < 2:
            return math.nan
        width = min(LATELY, len(known) // 2)
        medians = [statistics.median(known[i - width : i]) for i in range(width, len(known) + 1)]
        return medians[-1] - min(medians)

    def times_the_first(self, name: str) -> float:
        """The last observations over the first ones; NaN where these are not positive."""
        known = self._known(name)
        width = min(LATELY, len(known) // 2)
        before = statistics.median(known[:width]) if width else 0.0
        return statistics.median(known[-width:]) / before if before > 0 else math.nan

    def risen(self, name: str) -> tuple[float, float] | None:
        """The lowest median of some observations in a row, and the last one, if that is far above.

        Far is three tenths of the fall before, a fifth of the lowest, and more than they scatter.
        """
        known = list(filter(math.isfinite, self._known(name)))
        width = min(LATELY, len(known) // 3)
        if width < ENOUGH:
            return None
        medians = [statistics.median(known[i - width : i]) for i in range(width, len(known) + 1)]
        at = medians.index(min(medians))
        best, now = medians[at], medians[-1]
        scatter = max(_deviation(known[at : at + width]), _deviation(known[-width:]))
        far = max(0.3 * (medians[0] - best), 0.2 * abs(best), 4 * scatter)
        return (best, now) if now - best > far else None

    def fallen(self, name: str) -> float:
        """The part that is left lately of what the figure was before its largest sudden fall.

        A fall is one to less than a 30th of the median before, from one observation to the next.
        """
        known = self._known(name)
        left = 1.0
        for i in range(ENOUGH, len(known) - ENOUGH + 1):
            if not known[i] < known[i - 1] / 10:
                continue
            before = statistics.median(known[max(0, i - LATELY) : i])
            if known[i] < before / 30:
                left = min(left, statistics.median(known[i:][-LATELY:]) / before)
        return left

    def is_history(self, name: str) -> bool:
        """Whether there are enough observations to say what is usual."""
        return len(self._values.get(name, [])) >= ENOUGH

    def _known(self, name: str) -> list[float]:
        values = self._values.get(name, [])
        return values if len(values) >= self._enough else []


def _deviation(values: list[float]) -> float:
    """The standard deviation of values that are normal but for a few."""
    middle = statistics.median(values)
    return 1.48 * statistics.median([abs(x - middle) for x in values])


def gathered(rows: Rows, enough: int) -> dict[str, Evidence]:
    """The evidence of each group, by its name; that of the whole tree has an empty one."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float) and not math.isnan(value):
                figure, _, where = name.partition("/")
                groups.setdefault(where, {}).setdefault(figure, []).append(float(value))
    step = rows[-1].get("step", math.inf) if rows else 0
    return {where: Evidence(values, enough, step) for where, values in sorted(groups.items())}


def rows_of(health: Any) -> tuple[Rows, int]:
    """The rows of a state, of its figures or of a history, and how many observations it takes."""
    if isinstance(health, str | os.PathLike):
        raise TypeError(
            f"`doctor` takes rows or a state, got the path {os.fspath(health)!r}: call "
            "`health.doctor(health.history(path))`"
        )
    health = list(health) if isinstance(health, Iterator) else health
    if _is_history(health):
        rows, enough = [figures_of(row) for row in health], ENOUGH
    else:
        row = figures_of(health) if isinstance(health, Mapping) else _row(health)
        if not row.keys() - {"step", "time"}:
            raise ValueError("there are no figures: wrap the optimizer in `health.observe`")
        rows, enough = [row], 1
    if enough == 1 and rows[0].get("step", EARLY) < EARLY:
        enough = 2
    return [row for row in rows if not _is_blank(row)], enough


def _is_history(health: Any) -> bool:
    """Whether these are rows. A state is a tuple too, which may begin with a dictionary."""
    if not isinstance(health, Sequence) or hasattr(health, "_fields"):
        return False
    return not health or isinstance(health[0], Mapping)


def _row(state: Any) -> dict[str, Any]:
    steps = [int(first(x.step)) for x in nodes(state) if isinstance(x, ObserveState)]
    return read(state) | ({"step": steps[0]} if steps else {})


def _is_blank(row: Mapping[str, Any]) -> bool:
    """Whether the row is of an observer that has seen no step yet: every figure is NaN."""
    return bool(np.all([math.isnan(row.get(name) or 0.0) for name in NAMES]))
