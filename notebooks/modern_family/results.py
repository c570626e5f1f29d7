# SPDX-License-Identifier: Apache-2.0
"""The table of finished runs: a CSV that grows by one row per run and survives an interruption."""

import csv
import pathlib
from typing import NamedTuple


class Row(NamedTuple):
    """One training run.

    Attributes:
      workload, entrant: their names.
      rate, decay, seed: the peak of the learning rate, the decay, and what drew the run.
      loss: the validation loss at the end of the schedule; NaN where the run diverged.
      train_loss: the training loss there.
    """

    workload: str
    entrant: str
    rate: float
    decay: float
    seed: int
    loss: float
    train_loss: float


def read(path: pathlib.Path) -> list[Row]:
    """All rows, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [_parsed(line) for line in csv.DictReader(file)]


def append(path: pathlib.Path, row: Row) -> None:
    """Writes one row, under a header where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(Row._fields)
        writer.writerow(f"{x:.6g}" if isinstance(x, float) else x for x in row)


def _parsed(line: dict[str, str]) -> Row:
    rate, decay, loss, train_loss = (
        float(line[k]) for k in ("rate", "decay", "loss", "train_loss")
    )
    return Row(line["workload"], line["entrant"], rate, decay, int(line["seed"]), loss, train_loss)
