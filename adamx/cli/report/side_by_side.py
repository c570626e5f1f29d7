# SPDX-License-Identifier: Apache-2.0
"""The losses of several runs side by side: a picture and a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adamx.cli.flags import optional_import
from adamx.health.report.plot import History, series, smooth

HEADER = ["", "steps", "last loss", "last validation loss", "best"]
VALIDATION = "validation loss"


def rows(runs: Mapping[str, History]) -> list[list[str]]:
    """The cells of `HEADER` for each run; the last loss is a median over 1 / 30 of the rows."""
    cells = []
    for name, history in runs.items():
        losses, held_out = series(history, "loss")[1], series(history, VALIDATION)[1]
        figures = [smooth(losses)[-1:], held_out[-1:], np.sort(held_out)[:1]]
        cells.append([name, f"{history[-1]['step']:,}", *(_figure(x) for x in figures)])
    return cells


def picture(runs: Mapping[str, History]) -> Any:
    """Left: all losses. Right: the last two thirds, with validation losses if there are any."""
    figure_of = optional_import("matplotlib.figure", "matplotlib").Figure
    figure = figure_of(figsize=(11, 3.6), layout="constrained")
    whole, last = figure.subplots(1, 2)
    begin = max(history[-1]["step"] for history in runs.values()) / 3
    held_out = any(series(history, VALIDATION)[0].size for history in runs.values())
    for i, (name, history) in enumerate(runs.items()):
        style = {"lw": 1.4, "ls": ("-", "--", "-.", ":")[i % 4], "label": name}
        steps, losses = series(history, "loss")
        losses = smooth(losses)
        whole.plot(steps, losses, **style)
        if held_out:
            steps, losses = series(history, VALIDATION)
        late = steps >= begin
        last.plot(steps[late], losses[late], marker="o" if held_out else "", ms=4, **style)
    whole.set(ylabel="loss")
    last.set(ylabel=VALIDATION if held_out else "loss")
    whole.legend(frameon=False)
    for axes in (whole, last):
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(x: Any) -> str:
    return f"{x[0]:.4g}" if len(x) else ""
