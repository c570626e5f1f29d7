# SPDX-License-Identifier: Apache-2.0
"""Where a history stops being finite: since which step, and in which leaf first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

LOSSES = ("loss", "validation loss")
NORMS = ("grad_norm", "update_norm", "param_norm")


class Broken(NamedTuple):
    """A history that ends with rows that are not finite.

    Attributes:
      before: the rows before these.
      step: the step of the first of them; None if the rows have no steps.
      figure: the first figure that is not finite.
      leaves: those of the first row that shows any.
      of: how many leaves that row has.
      seen: its step.
    """

    before: Sequence[Row]
    step: Any
    figure: str
    leaves: list[str]
    of: int
    seen: Any

    def __str__(self) -> str:
        said = "not finite" if self.step is None else f"not finite since step {self.step:,}"
        if not self.leaves:
            return f"{said}, first in {self.figure.replace('_', ' ')}"
        where = f"first in leaf {self.leaves[0]}"
        if len(self.leaves) == self.of > 1:
            where = f"in all {self.of} leaves"
        elif len(self.leaves) > 1:
            where += f" and {len(self.leaves) - 1} more"
        later = "" if self.seen == self.step else f" when next observed, at step {self.seen:,}"
        return f"{said}, {where}{later}"


def broken(rows: Sequence[Row]) -> Broken | None:
    """How the rows end; None where they end with finite losses and norms."""
    begin = end = len(rows)
    for i in reversed(range(end)):
        if bad_figure(rows[i]):
            begin = i
        elif _tells(rows[i]):
            break
    if begin == end:
        return None
    bad = rows[begin:]
    leaves: list[str] = []
    of, seen = 0, None
    for row in bad:
        names = dict.fromkeys(k.partition("/")[2] for k in row if k.startswith("grad_norm/"))
        leaves = [name for name in names if not _is_finite(row, name)]
        if leaves:
            of, seen = len(names), row.get("step")
            break
    return Broken(rows[:begin], bad[0].get("step"), bad_figure(bad[0]), leaves, of, seen)


def broken_spans(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """The first and the last step of each part of a history that is not finite.

    Example:
      >>> broken_spans([{"step": i, "loss": math.inf if i > 7 else 1.0} for i in range(10)])
      [(8, 9)]
    """
    spans: list[tuple[float, float]] = []
    goes_on = False
    for row in rows:
        if bad_figure(row):
            begin = spans.pop()[0] if goes_on else row["step"]
            spans.append((begin, row["step"]))
            goes_on = True
        elif _tells(row):
            goes_on = False
    return spans


def bad_figure(row: Row) -> str:
    """The first loss or norm of the whole tree that is not finite; empty if there is none.

    A gradient that a guard has kept out, so that the update is finite, does not count. Of a
    state with observers in groups only, the norms of the groups count.
    """
    for where in ("", *_groups(row)):
        for name in (*LOSSES, "update_norm", "param_norm", "grad_norm"):
            if _number(row, name + where) and not math.isfinite(row[name + where]):
                update = row.get(f"update_norm{where}", math.nan)
                if name == "grad_norm" and math.isfinite(update):
                    continue
                return name
    return ""


def _groups(row: Row) -> list[str]:
    """What the names of norms end in, if there are none of the whole tree, and no loss."""
    if any(name in row for name in (*LOSSES, *NORMS)):
        return []
    parts = (name.partition("/") for name in row)
    return list(dict.fromkeys(f"/{where}" for figure, _, where in parts if figure in NORMS))


def _tells(row: Row) -> bool:
    return any(_number(row, name + x) for x in ("", *_groups(row)) for name in (*LOSSES, *NORMS))


def _number(row: Row, name: str) -> bool:
    return isinstance(row.get(name), int | float)


def _is_finite(row: Row, leaf: str) -> bool:
    return all(math.isfinite(row.get(f"{name}/{leaf}") or 0) for name in NORMS)
