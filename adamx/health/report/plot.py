# SPDX-License-Identifier: Apache-2.0
"""A history of figures as one page of plots, by matplotlib."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

History = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREEN, RED, VIOLET, GREY = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#777777"),
)
# The counters whose growth is marked, with their colours.
EVENTS = {
    "skipped": RED,
    "spikes": ORANGE,
    "overflows": VIOLET,
    "rewinds": GREEN,
    "clipped": "#56b4e9",
}
NORMS = {"grad_norm": BLUE, "update_norm": ORANGE, "param_norm": GREEN}
SHARES = {
    "under_epsilon": BLUE,
    "lost": RED,
    "idle": GREY,
    "at_floor": GREEN,
    "at_ceiling": VIOLET,
    "clip_rate": "#56b4e9",
}
LEAVES = 40  # rows of the heat map


def plot(history: History, title: str = "") -> Any:
    """One page: the loss, norms, update ratio, shares, and every leaf over time.

    Marks show where steps were skipped, where the run went back, and where gradients were clipped.
    Panels without data are left out.

    Args:
      history: rows of figures with their step, as `health.history` reads them.
      title: the title of the page.

    Returns:
      A matplotlib `Figure`.

    Example:
      >>> rows = [{"step": i, "loss": 1 / i, "grad_norm": 2 / i} for i in range(1, 50)]
      >>> [axes.get_ylabel() for axes in plot(rows).axes]
      ['loss', 'norm']
    """
    from matplotlib.figure import Figure

    if not history:
        raise ValueError("`history` is empty: there is nothing to plot")
    leaves = _leaves(history)
    panels: list[tuple[Callable[[Any, History], None], float]] = [
        (panel, 1.0) for panel, names in _PANELS if any(_known(history, name) for name in names)
    ]
    if leaves:
        panels.append((lambda axes, rows: _heat(axes, rows, leaves), 0.6 + 0.13 * len(leaves)))
    if not panels:
        raise ValueError(f"`history` has nothing to plot, only {', '.join(history[-1])}")
    heights = [height for _, height in panels]
    figure = Figure(figsize=(10, 0.6 + 2.1 * sum(heights)), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    grid = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (panel, _) in zip(grid[:, 0], panels, strict=True):
        panel(axes, history)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    grid[-1, 0].set_xlabel("step")
    return figure


def marks(history: History) -> dict[str, list[float]]:
    """For each kind of event, the steps of the rows in which its count has grown.

    Example:
      >>> marks([{"step": 10, "skipped": 0}, {"step": 20, "skipped": 2}])
      {'skipped': [20]}
    """
    found = {}
    for name in EVENTS:
        rows = [(row["step"], row[name]) for row in history if row.get(name) is not None]
        before = [0, *(count for _, count in rows)]
        grown = [step for (step, count), last in zip(rows, before, strict=False) if count > last]
        if grown:
            found[name] = grown
    return found


def series(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps at which a figure is known, and its values."""
    rows = [(row["step"], row[name]) for row in history if _is_number(row.get(name))]
    steps, values = np.asarray(rows, float).reshape(-1, 2).T
    return steps, values


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)


def _known(history: History, name: str) -> bool:
    return any(_is_number(row.get(name)) for row in history)


def _loss(axes: Any, history: History) -> None:
    steps, losses = series(history, "loss")
    axes.plot(steps, losses, color=BLUE, lw=0.6, alpha=0.45 if len(steps) > 60 else 1)
    if len(steps) > 60:
        axes.plot(steps, smooth(losses), color=BLUE, lw=1.6)
    if _known(history, "validation loss"):
        steps, held_out = series(history, "validation loss")
        axes.plot(steps, held_out, "o-", color=ORANGE, ms=3, lw=1, label="validation")
        losses = np.concatenate([losses, held_out])
    low, high = np.min(losses), np.quantile(losses, 0.995)
    pad = 0.05 * (high - low) or 0.1
    axes.set_ylim(low - pad, high + 3 * pad)
    _mark(axes, history)
    axes.set_ylabel("loss")
    _legend(axes)


def _mark(axes: Any, history: History) -> None:
    """Ticks along the top, a row for each kind of event."""
    for row, (name, steps) in enumerate(marks(history).items()):
        axes.plot(
            steps,
            [0.97 - 0.07 * row] * len(steps),
            "|",
            color=EVENTS[name],
            transform=axes.get_xaxis_transform(),
            ms=6,
            mew=1.2,
            label=f"{name} ({len(steps)})",
        )


def smooth(x: np.ndarray) -> np.ndarray:
    """A running median over 1 / 30 of the rows."""
    half = max(1, len(x) // 60)
    return np.array([np.median(x[max(0, i - half) : i + half + 1]) for i in range(len(x))])


def _norms(axes: Any, history: History) -> None:
    _lines(axes, history, NORMS, log=True)
    axes.set_ylabel("norm")


def _ratio(axes: Any, history: History) -> None:
    axes.axhspan(1e-4, 1e-2, color=GREY, alpha=0.12, lw=0, label="usual")
    _lines(axes, history, {"update_ratio": ORANGE}, log=True)
    axes.set_ylabel("update / parameter")


def _shares(axes: Any, history: History) -> None:
    _lines(axes, history, SHARES)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_ylabel("share")


def _lines(axes: Any, history: History, colours: Mapping[str, str], log: bool = False) -> None:
    for name, colour in colours.items():
        if _known(history, name):
            steps, values = series(history, name)
            values = np.where(values > 0, values, np.nan) if log else values
            axes.plot(steps, values, color=colour, lw=1, label=name.replace("_", " "))
            if log and np.any(values > 0):
                axes.set_yscale("log")
    _legend(axes)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)


_PANELS: tuple[tuple[Callable[[Any, History], None], tuple[str, ...]], ...] = (
    (_loss, ("loss",)),
    (_norms, tuple(NORMS)),
    (_ratio, ("update_ratio",)),
    (_shares, tuple(SHARES)),
)


def _leaves(history: History) -> list[str]:
    """The leaves and groups with recorded gradients, at most `LEAVES`."""
    names = dict.fromkeys(name for row in history for name in row)
    found = [name.partition("/")[2] for name in names if name.startswith("grad_rms/")]
    return found[:LEAVES]


def _heat(axes: Any, history: History, leaves: list[str]) -> None:
    """Gradients of each leaf over time, in decades above and below their own median."""
    rows = [row for row in history if any(f"grad_rms/{leaf}" in row for leaf in leaves)]
    steps = np.array([row["step"] for row in rows], float)
    sizes = np.array([[row.get(f"grad_rms/{leaf}") for row in rows] for leaf in leaves], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(sizes)
        decades[np.isneginf(decades)] = -9  # no gradient at all
        decades -= [
            [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0] for row in decades
        ]
    edges = np.concatenate([steps, steps[-1:] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)])
    colours = axes.pcolormesh(
        edges, np.arange(len(leaves) + 1), decades, cmap="RdBu_r", vmin=-2, vmax=2, rasterized=True
    )
    axes.set_facecolor("#444444")  # values that are not finite
    axes.set_yticks(np.arange(len(leaves)) + 0.5, leaves, fontsize=7)
    axes.invert_yaxis()
    bar = axes.figure.colorbar(colours, ax=axes, pad=0.01, aspect=30)
    bar.set_label("gradient, decades from its median", fontsize=8)
