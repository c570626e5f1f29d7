# SPDX-License-Identifier: Apache-2.0
"""What went where, and what the dtypes and storages of the new place lose of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamx.core.tables import as_text
from adamx.interop.states import Moments


class Row(NamedTuple):
    """One leaf.

    Attributes:
      leaf: its name here.
      source: its name, or names, there.
      kind: how it was rearranged.
      group: its parameter group; empty if it is not trained.
      lost: of the weight (`"weight"`) and each moment, by name: the root mean square of the error,
        relative to that of the values.
    """

    leaf: str
    source: str
    kind: str
    group: str
    lost: dict[str, float]


class Report(NamedTuple):
    """All leaves, and what was left behind. Printed, it is a table.

    Attributes:
      rows: one for each leaf.
      left: names there that no leaf takes: buffers, and weights that are tied to others.
      notes: what else is to be known, a line each.
    """

    rows: list[Row]
    left: list[str]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        columns = list(dict.fromkeys(k for row in self.rows for k in row.lost))
        header = ["leaf", "from", "as", "group", *(f"{k} lost" for k in columns)]
        table = as_text(header, [self._cells(row, columns) for row in self.rows])
        left = f"\n\nleft out: {', '.join(self.left)}" if self.left else ""
        return "\n".join([f"{table}{left}", *(f"\n{note}" for note in self.notes)])

    @staticmethod
    def _cells(row: Row, columns: Sequence[str]) -> list[str]:
        lost = [_share(row.lost[k]) if k in row.lost else "-" for k in columns]
        return [row.leaf, row.source, row.kind, row.group or "-", *lost]


def lost(
    before: tuple[Mapping[str, Any], Mapping[str, Moments]],
    after: tuple[Mapping[str, Any], Mapping[str, Moments]],
) -> dict[str, dict[str, float]]:
    """For each leaf, what its weight and its moments have lost from one place to the other."""
    found: dict[str, dict[str, float]] = {}
    for name, weight in after[0].items():
        found[name] = {"weight": error(weight, before[0][name])}
        if name in before[1] and name in after[1]:
            theirs, ours = before[1][name].arrays, after[1][name].arrays
            found[name] |= {k: error(ours[k], x) for k, x in theirs.items() if k in ours}
    return found


def error(now: Any, before: Any) -> float:
    """The root mean square of `now - before`, relative to that of `before`."""
    now, before = np.asarray(now, np.float64), np.asarray(before, np.float64)
    size, apart = _rms(before), _rms(now - before)
    return apart / size if size else apart


def _rms(x: np.ndarray) -> float:
    most = float(np.max(np.abs(x), initial=0.0))
    return most * float(np.sqrt(np.mean((x / most) ** 2))) if most else 0.0


def _share(x: float) -> str:
    return "0" if x == 0 else f"{x:.1e}"
