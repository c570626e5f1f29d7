# SPDX-License-Identifier: Apache-2.0
"""Validation loss over steps with bands of five seeds, each storage at its own best rate.

`curves_runs.py` made `curves.csv`.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from docs.pictures.drawing import HERE, Theme, rows, write
from docs.pictures.rates import FORMATS, TITLES

# The band of losses that tells storages apart; all begin far above it.
RANGES = {"mlp": (0.03, 1.0), "cnn": (0.03, 1.0), "embedding": (3.7, 5.6), "bigram": (3e-5, 1.0)}


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("curves", _draw, folder, (4.8, 4.8))


def losses() -> dict[tuple[str, str], dict[int, list[float]]]:
    """From workload and format to the validation losses at each step, one per seed."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows(HERE / "curves.csv"):
        found[row["workload"], row["format"]][int(row["step"])].append(float(row["val_loss"]))
    return found


def _draw(figure: Any, theme: Theme) -> None:
    found = losses()
    colours = dict(zip(FORMATS, (theme.ink, theme.blue, theme.red), strict=True))
    panels = figure.subplots(2, 2).ravel()
    for axes, (workload, limits) in zip(panels, RANGES.items(), strict=True):
        for name in FORMATS:
            steps = list(found[workload, name])
            seeds = np.array(list(found[workload, name].values()))
            axes.plot(steps, seeds.mean(1), lw=1.4, color=colours[name], label=name)
            low, high = seeds.min(1), seeds.max(1)
            axes.fill_between(steps, low, high, color=colours[name], alpha=0.18, lw=0)
        if workload != "embedding":
            axes.set_yscale("log")
        axes.set(title=TITLES[workload], ylim=limits)
        axes.locator_params(axis="x", nbins=4)
    for axes in panels[-2:]:
        axes.set_xlabel("step")
    for axes in panels[::2]:
        axes.set_ylabel("validation loss")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)


if __name__ == "__main__":
    picture()
