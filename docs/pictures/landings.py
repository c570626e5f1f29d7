# SPDX-License-Identifier: Apache-2.0
"""What bfloat16 parameters lose by each landing, one dot per seed, from the study's own CSVs."""

from pathlib import Path
from typing import Any

import numpy as np

from docs.pictures.drawing import HERE, STUDY, Theme, rows, write

LANDINGS = ("nearest", "stochastic", "compensated8", "kahan", "exact")


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("landings", _draw, folder, (4.8, 2.8))


def losses(workload: str) -> dict[str, list[float]]:
    """The final losses of each landing and of float32 parameters, each at its own best rate."""
    given = [(r, r["landing"]) for r in rows(STUDY / "landings.csv") if r["format"] == "float32"]
    for name in ("small", "transformer"):
        given += [(r, "float32") for r in rows(STUDY / f"{name}.csv") if r["format"] == "float32"]
    found: dict[str, dict[float, list[float]]] = {}
    for row, entrant in given:
        if row["workload"] == workload:
            rates = found.setdefault(entrant, {})
            rates.setdefault(float(row["rate"]), []).append(float(row["val_loss"]))
    return {entrant: _best(rates) for entrant, rates in found.items()}


def _best(rates: dict[float, list[float]]) -> list[float]:
    most = max(map(len, rates.values()))
    return min((x for x in rates.values() if len(x) == most), key=lambda x: float(np.mean(x)))


def _draw(figure: Any, theme: Theme) -> None:
    names = ("float32", *LANDINGS)
    for axes, (workload, title) in zip(
        figure.subplots(1, 2, sharey=True),
        {"transformer": "byte-level transformer", "mlp": "MLP on digits"}.items(),
        strict=True,
    ):
        found = losses(workload)
        for y, name in enumerate(names):
            colour = {"float32": theme.ink, "nearest": theme.red}.get(name, theme.blue)
            axes.plot(found[name], [y] * len(found[name]), "o", ms=5, alpha=0.55, color=colour)
            axes.plot([np.mean(found[name])], [y], "|", ms=18, mew=2, color=colour)
        axes.axvline(float(np.mean(found["float32"])), color=theme.faint, lw=1, zorder=0)
        axes.set(title=title, xlabel="final validation loss", yticks=range(6))
        axes.set_yticklabels(["float32 parameters", *LANDINGS])
        axes.set_ylim(5.6, -0.6)
        axes.locator_params(axis="x", nbins=4)


if __name__ == "__main__":
    picture()
