# SPDX-License-Identifier: Apache-2.0
"""The losses of several runs side by side: a picture and a table."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adamx.cli.flags import optional_import
from adamx.health.report.not_finite import broken
from adamx.health.report.plot import History, series, smooth, spans_decades

HEADER = ["", "steps", "last loss", "last validation loss", "best"]
VALIDATION = "validation loss"


def rows(runs: Mapping[str, History]) -> list[list[str]]:
    """The cells of `HEADER` for each run; the last loss is a median over 1 / 30 of the rows."""
    cells = []
    for name, history in runs.items():
        losses, held_out = series(history, "loss")[1], series(history, VALIDATION)[1]
        best = np.sort(held_out[np.isfinite(held_out)])[:1]
        figures = [_figure(x) for x in (smooth(losses)[-1:], held_out[-1:], best)]
        if end := broken(history):
            figures[0] = f"not finite since step {end.step:,}"
        cells.append([name, f"{history[-1]['step']:,}", *figures])
    return cells


def picture(runs: Mapping[str, History]) -> Any:
    """Left: all losses. Right: the last two thirds, with validation losses if there are any.

    A cross marks the end of a run that ends by NaN or an infinity.
    """
    figure_of = optional_import("matplotlib.figure", "matplotlib").Figure
    figure = figure_of(figsize=(11, 3.6), layout="constrained")
    whole, last = figure.subplots(1, 2)
    begin = max(history[-1]["step"] for history in runs.values()) / 3
    held_out = any(series(history, VALIDATION)[0].size for history in runs.values())
    for i, (name, history) in enumerate(runs.items()):
        end = broken(history)
        label = f"{name}, not finite since step {end.step:,}" if end else name
        style = {"color": f"C{i}", "lw": 1.4, "ls": ("-", "--", "-.", ":")[i % 4], "label": label}
        steps, losses = series(history, "loss")
        losses = smooth(losses)
        whole.plot(steps, losses, **style)
        if end:
            _cross(whole, steps, losses, f"C{i}")
        if held_out:
            steps, losses = series(history, VALIDATION)
        late = steps >= begin
        last.plot(steps[late], losses[late], marker="o" if held_out else "", ms=4, **style)
        if end:
            _cross(last, steps[late], losses[late], f"C{i}")
    for axes in (whole, last):
        seen = np.concatenate([line.get_ydata() for line in axes.get_lines()])
        if spans_decades(np.asarray(seen, float)):
            axes.set_yscale("log")
    whole.set(ylabel="loss")
    last.set(ylabel=VALIDATION if held_out else "loss")
    whole.legend(frameon=False)
    for axes in (whole, last):
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _cross(axes: Any, steps: np.ndarray, losses: np.ndarray, colour: str) -> None:
    """A cross at the last finite loss, or where there is none, at the foot of the picture."""
    known = np.flatnonzero(np.isfinite(losses))
    if known.size:
        at, height, where = steps[known[-1]], losses[known[-1]], axes.transData
    elif steps.size:
        at, height, where = steps[0], 0.03, axes.get_xaxis_transform()
    else:
        return
    axes.plot([at], [height], "X", color=colour, ms=9, transform=where, clip_on=False)


def _figure(x: Any) -> str:
    return f"{x[0]:.4g}" if len(x) else ""
