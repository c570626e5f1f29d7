# SPDX-License-Identifier: Apache-2.0
"""The tables of the study, as Markdown, from the CSVs of `training.py`.

python -m notebooks.small_states.summary notebooks/small_states/results/training*.csv
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from adamx.cli.tables import as_markdown
from notebooks.small_states import protocol, results
from notebooks.small_states.results import Entrant, Row

REFERENCE = Entrant("float32", "nearest", "float32")
HEADER = ("workload", "moments", "landing", "best rate", "validation loss", "from float32", "edge")


def main(paths: Sequence[str] | None = None) -> None:
    """Prints the table of the CSVs named on the command line."""
    rows = results.read([pathlib.Path(p) for p in paths or sys.argv[1:]])
    lines = [
        line(workload, entrant, rows)
        for workload in dict.fromkeys(r.workload for r in rows)
        for entrant in dict.fromkeys(r.entrant for r in rows if r.workload == workload)
    ]
    print(as_markdown(HEADER, lines))
    print(
        "\nMean ± standard deviation over seeds at the entrant's best rate; `from float32`: the "
        "difference of means in standard deviations of float32's seeds; `edge`: the largest "
        "rate that still trains."
    )


def line(workload: str, entrant: Entrant, rows: Sequence[Row]) -> list[str]:
    """What one entrant reached on one workload."""
    mine = _of(workload, entrant, rows)
    losses, reference = _finals(mine), _finals(_of(workload, REFERENCE, rows))
    spread = np.std(reference, ddof=1) if len(reference) > 1 else np.nan
    apart = (np.mean(losses) - np.mean(reference)) / spread if reference else np.nan
    return [
        workload,
        entrant.format,
        entrant.landing if entrant.param_dtype != "float32" else "",
        f"{protocol.best_rate(mine):.3g}",
        f"{np.mean(losses):.4g} ± {np.std(losses, ddof=min(1, len(losses) - 1)):.2g}",
        f"{apart:+.2f}",
        f"{protocol.largest_rate(mine, rows):.3g}",
    ]


def _of(workload: str, entrant: Entrant, rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r.workload == workload and r.entrant == entrant]


def _finals(mine: Sequence[Row]) -> list[float]:
    """The validation losses of all seeds at the best rate."""
    if not mine:
        return []
    best = protocol.best_rate(mine)
    return [r.val_loss for r in mine if r.rate == best]


if __name__ == "__main__":
    main()
