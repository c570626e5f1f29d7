# SPDX-License-Identifier: Apache-2.0
"""The table of finished runs: a CSV that grows by one row per run and survives an interruption."""

import csv
import pathlib
from collections.abc import Iterable
from typing import NamedTuple


class Entrant(NamedTuple):
    """What competes: how moments are stored, how steps land, in what the parameters rest."""

    format: str
    landing: str
    param_dtype: str


class Row(NamedTuple):
    """One training run. `diverged`: it ended no better than it began, or not finite."""

    workload: str
    format: str
    landing: str
    param_dtype: str
    rate: float
    seed: int
    train_loss: float
    val_loss: float
    start_loss: float
    diverged: bool

    @property
    def entrant(self) -> Entrant:
        return Entrant(self.format, self.landing, self.param_dtype)


def read(paths: Iterable[pathlib.Path]) -> list[Row]:
    """All rows of the files that exist."""
    rows = []
    for path in paths:
        if path.exists():
            with path.open(newline="") as file:
                rows += [_parsed(line) for line in csv.DictReader(file)]
    return rows


def append(path: pathlib.Path, row: Row) -> None:
    """Writes one row, under a header where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(Row._fields)
        writer.writerow(f"{x:.7g}" if isinstance(x, float) else x for x in row)


def _parsed(line: dict[str, str]) -> Row:
    return Row(
        *(line[k] for k in Row._fields[:4]),
        float(line["rate"]),
        int(line["seed"]),
        *(float(line[k]) for k in ("train_loss", "val_loss", "start_loss")),
        line["diverged"] == "True",
    )
