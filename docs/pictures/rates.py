# SPDX-License-Identifier: Apache-2.0
"""Final validation loss over the learning rate with bands of seeds, from the study's own CSVs."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from docs.pictures.drawing import HERE, STUDY, Theme, rows, write

TITLES = {
    "mlp": "MLP on digits",
    "cnn": "CNN on digits",
    "transformer": "byte-level transformer",
    "embedding": "embedding, rare rows",
    "control": "PPO on a pendulum",
    "bigram": "Zipf bigram, full batch",
}
FORMATS = ("float32", "int8", "int4")


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("rates", _draw, folder, (4.8, 6.6))


def losses() -> dict[tuple[str, str], dict[float, list[float]]]:
    """From workload and format to the final losses of each rate, one per seed."""
    found: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name in ("small", "transformer"):
        for row in rows(STUDY / f"{name}.csv"):
            loss = float(row["val_loss"])
            if math.isfinite(loss):
                found[row["workload"], row["format"]][float(row["rate"])].append(loss)
    return found


def _draw(figure: Any, theme: Theme) -> None:
    found = losses()
    colours = dict(zip(FORMATS, (theme.ink, theme.blue, theme.red), strict=True))
    panels = figure.subplots(3, 2).ravel()
    for axes, (workload, title) in zip(panels, TITLES.items(), strict=True):
        best = min(np.mean(x) for x in found[workload, "float32"].values())
        top = best * (1000 if workload == "bigram" else 1.45 if best > 1.5 else 2.6)
        for name in FORMATS:
            rates = sorted(found[workload, name])
            seeds = [found[workload, name][rate] for rate in rates]
            mean = np.array([np.mean(x) for x in seeds])
            spread = np.array([np.std(x, ddof=1) for x in seeds])
            axes.plot(rates, mean, "o-", ms=3, lw=1.4, color=colours[name], label=name)
            low = np.maximum(mean - spread, best / 3)
            axes.fill_between(rates, low, mean + spread, color=colours[name], alpha=0.18, lw=0)
        axes.set_xscale("log")
        if workload == "bigram":
            axes.set_yscale("log")
        axes.set(title=title, ylim=(best * (0.5 if workload == "bigram" else 0.9), top))
        axes.minorticks_off()
    for axes in panels[-2:]:
        axes.set_xlabel("learning rate")
    for axes in panels[::2]:
        axes.set_ylabel("final validation loss")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)


if __name__ == "__main__":
    picture()
