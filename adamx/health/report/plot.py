# SPDX-License-Identifier: Apache-2.0
"""A history of figures as one page of plots, by matplotlib."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adamx.health.read import figures_of
from adamx.health.report.not_finite import broken_spans

History = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
RED, VIOLET, GREY = "#d55e00", "#cc79a7", "#777777"
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
DECADES = 30  # losses whose largest is so many times the smallest are shown on a log scale
FEW = 12  # values that are shown as dots too: a line of one value is invisible


def plot(history: History, title: str = "", width: float = 10) -> Any:
    """One page: the loss, norms, update ratio, shares, and every leaf over time.

    Marks show where steps were skipped, where the run went back, and where gradients were clipped;
    a red background, where the run was not finite. Panels without data are left out.

    Args:
      history: rows of figures with their step, as `health.history` reads them.
      title: the title of the page.
      width: the width in inches.

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
    known = ", ".join(history[-1])
    history = [figures_of(row) for row in history]
    leaves = _leaves(history)
    panels: list[tuple[Callable[[Any, History], None], float]] = [
        (panel, 1.0)
        for panel, names, shows in _PANELS
        if any(shows(series(history, name)[1]).any() for name in names)
    ]
    if leaves:
        panels.append((lambda axes, rows: _heat(axes, rows, leaves), 0.6 + 0.13 * len(leaves)))
    if not panels:
        raise ValueError(f"`history` has nothing to plot, only {known}")
    heights = [height for _, height in panels]
    figure = Figure(figsize=(width, 0.6 + 2.1 * sum(heights)), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    grid = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (panel, _) in zip(grid[:, 0], panels, strict=True):
        _shade(axes, history)
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
    """The steps at which a figure is known, and its values, NaN and infinities among them."""
    rows = [(row["step"], row[name]) for row in history if _is_number(row.get(name))]
    steps, values = np.asarray(rows, float).reshape(-1, 2).T
    return steps, values


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float)


def _shade(axes: Any, history: History) -> None:
    least = (history[-1]["step"] - history[0]["step"]) / 300
    style = {"color": "#e00020", "alpha": 0.25, "lw": 0, "zorder": 3}  # over the heat map
    for i, (begin, end) in enumerate(broken_spans(history)):
        is_first = i == axes.get_subplotspec().rowspan.start == 0
        label = f"not finite from step {begin:,}" if is_first else ""
        axes.axvspan(begin, max(end, begin + least), label=label, **style)


def _loss(axes: Any, history: History) -> None:
    steps, losses = series(history, "loss")
    many = len(steps) > 60
    shown = smooth(losses) if many else losses
    dots = "" if np.isfinite(losses).sum() > FEW else "o"
    axes.plot(steps, losses, dots + "-", color=BLUE, ms=3, lw=0.6, alpha=0.45 if many else 1)
    if many:
        axes.plot(steps, shown, color=BLUE, lw=1.6)
    held_out = series(history, "validation loss")
    if held_out[1].size:
        axes.plot(*held_out, "o-", color=ORANGE, ms=3, lw=1, label="validation")
    _limit(axes, np.concatenate([losses, held_out[1]]), shown[-1:])
    _mark(axes, history)
    axes.set_ylabel("loss")
    _legend(axes)


def _limit(axes: Any, values: np.ndarray, last: np.ndarray) -> None:
    """Shows nearly all values, and the last ones whatever they are."""
    values, last = values[np.isfinite(values)], last[np.isfinite(last)]
    if not values.size:
        axes.set_yticks([])
        return
    low, high = values.min(), np.max([np.quantile(values, 0.995), *last])
    if spans_decades(values):
        axes.set_yscale("log")
        pad = (high / low) ** 0.05
        axes.set_ylim(low / pad, high * pad**3)
        return
    pad = 0.05 * (high - low) or 0.1
    axes.set_ylim(low - pad, high + 3 * pad)


def spans_decades(values: np.ndarray) -> bool:
    """Whether losses are better seen on a log scale; a few outliers do not count.

    Example:
      >>> spans_decades(np.geomspace(1e-4, 1)), spans_decades(np.linspace(1, 2))
      (True, False)
    """
    values = values[np.isfinite(values)]
    if not values.size or values.min() <= 0:
        return False
    low, high = np.quantile(values, [0.02, 0.98])
    return bool(high / low > DECADES)


def _mark(axes: Any, history: History) -> None:
    """Ticks along the top, a row for each kind of event."""
    for row, (name, steps) in enumerate(marks(history).items()):
        total = series(history, name)[1][-1]
        axes.plot(
            steps,
            [0.97 - 0.07 * row] * len(steps),
            "|",
            color=EVENTS[name],
            transform=axes.get_xaxis_transform(),
            ms=6,
            mew=1.2,
            label=f"{name} ({total:,.0f})",
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
    some = {k: v for k, v in SHARES.items() if (series(history, k)[1] > 0).any()}
    _lines(axes, history, some)
    known = [series(history, name)[1] for name in SHARES]
    most = max(0.05, *(np.max(x, where=np.isfinite(x), initial=0) for x in known))
    axes.set_ylim(-0.02 * most, min(1.02, 1.2 * most))
    axes.yaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.set_ylabel("share")


def _lines(axes: Any, history: History, colours: Mapping[str, str], log: bool = False) -> None:
    for name, colour in colours.items():
        steps, values = series(history, name)
        if np.isfinite(values).any():
            values = np.where(values > 0, values, np.nan) if log else values
            style = {"marker": "o", "ms": 3} if np.isfinite(values).sum() <= FEW else {}
            axes.plot(steps, values, color=colour, lw=1, label=name.replace("_", " "), **style)
            if log and np.any(values > 0):
                axes.set_yscale("log")
    _legend(axes)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)


# Each panel, its figures, and which of their values it can show.
_PANELS: tuple[tuple[Callable[[Any, History], None], tuple[str, ...], Callable], ...] = (
    (_loss, ("loss",), np.ones_like),
    (_norms, tuple(NORMS), np.isfinite),
    (_ratio, ("update_ratio",), np.isfinite),
    (_shares, tuple(SHARES), lambda values: values > 0),
)


def _leaves(history: History) -> list[str]:
    """The leaves and groups with gradients at two steps or more, at most `LEAVES`."""
    names = dict.fromkeys(name for row in history for name in row if name.startswith("grad_rms/"))
    found = [name for name in names if np.isfinite(series(history, name)[1]).sum() > 1]
    return [name.partition("/")[2] for name in found[:LEAVES]]


def _heat(axes: Any, history: History, leaves: list[str]) -> None:
    """Gradients of each leaf over time, beside their own median."""
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
    axes.set_title("size of the gradient of each array of parameters", loc="left", fontsize=9)
    bar = axes.figure.colorbar(colours, ax=axes, location="bottom", pad=0.02, aspect=50)
    bar.set_ticks(range(-2, 3), labels=["1/100", "1/10", "usual size", "10 times", "100 times"])
    bar.ax.tick_params(labelsize=8)
