# SPDX-License-Identifier: Apache-2.0
"""What `compare` found, as rows: the best with its neighbours, and the files of all runs."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from adamx.cli.compare.sweep import HELD_OUT, Sweep
from adamx.cli.disk import writing
from adamx.cli.flags import UsageError, check_file

ENDINGS = (".csv", ".json")
AROUND = ["", "setting", "below", "best", "above", "edge"]


def around(name: str, found: Sweep) -> list[list[str]]:
    """A row for each setting: the best value, those beside it with their losses, and whether it
    lies on an edge of the grid."""
    if not found.has_best:
        return []
    edges, rows = found.grid.edges(found.best), []
    for setting, (below, above) in found.grid.neighbours(found.best).items():
        cells = [_cell(found, setting, point) for point in (below, found.best, above)]
        rows.append([name, setting, *cells, edges.get(setting, "")])
    return rows


def _cell(found: Sweep, setting: str, point: int | None) -> str:
    if point is None:
        return ""
    value, mean = found.grid.points[setting][point], found.losses[point].mean()
    said = "diverged" if np.isnan(mean) else f"{mean:.3g}"
    early = found.reached[point] < found.reached.max()
    return f"{shown(setting, value)}: {said}" + (
        f" at step {found.reached[point]}" if early else ""
    )


def advice(name: str, found: Sweep) -> list[str]:
    """A sentence for each edge of the grid on which the best lies."""
    if not found.has_best:
        return [f"{name}: every setting diverged: there is no best one"]
    return [
        f"{name}: the best {setting} is the {side} edge of the grid, "
        f"{shown(setting, found.grid.points[setting][found.best])}: widen it"
        for setting, side in found.grid.edges(found.best).items()
    ]


def shown(setting: str, value: float) -> str:
    """The value of a setting; 0.9999 is not 1 for a b2."""
    return f"{value:.6g}" if setting == "b2" else f"{value:.3g}"


def check_results(path: str) -> None:
    """Raises `UsageError` where results cannot be written there."""
    if Path(path).suffix not in ENDINGS:
        raise UsageError(f"--results must end in {', '.join(ENDINGS)}, got {path!r}")
    check_file(path)


def write(path: str, about: dict[str, Any], sweeps: dict[str, Sweep]) -> None:
    """Writes every run: rows in CSV; in JSON also `about`, and each optimizer's best."""
    rows = [row for name, found in sweeps.items() for row in _rows(name, found)]
    best = {name: _best(found) for name, found in sweeps.items()}
    with writing(path), Path(path).open("w", encoding="utf-8", newline="") as file:
        if path.endswith(".json"):
            json.dump({**about, "best": best, "runs": rows}, file, indent=1)
        else:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            sheet = csv.DictWriter(file, columns, lineterminator="\n")
            sheet.writeheader()
            sheet.writerows(rows)


def _rows(name: str, found: Sweep) -> list[dict[str, Any]]:
    points = found.grid.points
    return [
        {
            "optimizer": name,
            **{setting: float(f"{values[i]:.7g}") for setting, values in points.items()},
            "seed": j,
            "steps": int(found.reached[i]),
            **{figure: _known(x[i, j]) for figure, x in found.scores.items()},
            HELD_OUT: _known(found.losses[i, j]),
        }
        for i, j in np.ndindex(found.losses.shape)
    ]


def _best(found: Sweep) -> dict[str, Any]:
    if not found.has_best:
        nothing = [*found.grid.points, HELD_OUT, "deviation"]
        return {**dict.fromkeys(nothing), "edges": {}}
    losses = found.scores[HELD_OUT][found.best]
    return {
        **{k: float(f"{x[found.best]:.7g}") for k, x in found.grid.points.items()},
        HELD_OUT: _known(losses.mean()),
        "deviation": _known(losses.std(ddof=1)) if len(losses) > 1 else None,
        "edges": found.grid.edges(found.best),
    }


def _known(x: Any) -> float | None:
    """A number that JSON has; None for a NaN."""
    return float(x) if np.isfinite(x) else None
