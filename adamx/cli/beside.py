# SPDX-License-Identifier: Apache-2.0
"""The losses of several runs beside each other: one picture, and a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adamx.cli.arguments import optional_import
from adamx.health.plot import History, series, smooth

HEADER = ["", "steps", "last loss", "last validation loss", "best"]
VALIDATION = "validation loss"


def rows(runs: Mapping[str, History]) -> list[list[str]]:
    """The cells of `HEADER` for each run; of losses the last a median over a thirtieth of it."""
    cells = []
    for name, history in runs.items():
        losses, held_out = series(history, "loss")[1], series(history, VALIDATION)[1]
        figures = [smooth(losses)[-1:], held_out[-1:], np.sort(held_out)[:1]]
        cells.append([name, f"{history[-1]['step']:,}", *(_figure(x) for x in figures)])
    return cells


def picture(runs: Mapping[str, History]) -> Any:
    """Losses over steps, and their last third by itself; dots are validation losses."""
    figure_of = optional_import("matplotlib.figure", "matplotlib").Figure
    figure = figure_of(figsize=(11, 3.6), layout="constrained")
    whole, last = figure.subplots(1, 2)
    end = max(history[-1]["step"] for history in runs.values())
    seen = []
    for i, (name, history) in enumerate(runs.items()):
        steps, losses = series(history, "loss")
        losses = smooth(losses)
        at, held_out = series(history, VALIDATION)
        for axes in (whole, last):
            (line,) = axes.plot(steps, losses, lw=1.2, ls=("-", "--", "-.", ":")[i % 4], label=name)
            axes.plot(at, held_out, "o", ms=4, mfc="none", color=line.get_color())
        seen += [*losses[steps >= 2 / 3 * end], *held_out[at >= 2 / 3 * end]]
    last.set(xlim=(2 / 3 * end, 1.01 * end), title="the last third")
    if seen:
        pad = 0.05 * (max(seen) - min(seen)) or 0.1
        last.set_ylim(min(seen) - pad, max(seen) + pad)
    whole.set(ylabel="loss; dots: validation loss")
    whole.legend(frameon=False)
    for axes in (whole, last):
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(x: Any) -> str:
    return f"{x[0]:.4g}" if len(x) else ""
