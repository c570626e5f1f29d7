# SPDX-License-Identifier: Apache-2.0
"""The picture of `compare`: held-out losses at the best settings, and over all rates."""

from typing import Any

import numpy as np

from adamx.cli.compare.sweep import HELD_OUT, OTHERS, Sweep
from adamx.cli.flags import optional_import

COLOURED = 7  # as many lines as the eye can tell apart


def picture(sweeps: dict[str, Sweep]) -> Any:
    """Held-out losses: left at the best settings, right over all rates, the best few in colour.

    Bars are standard deviations over seeds on the left, minimum to maximum on the right, where each
    rate has its best further settings.
    """
    figure_of = optional_import("matplotlib.figure", "matplotlib").Figure
    figure = figure_of(figsize=(11, 1.5 + 0.26 * max(8, len(sweeps))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    for i, (name, found) in enumerate(sweeps.items()):
        colour = "#d55e00" if name in OTHERS else "#0072b2"
        mean, spread = loss(found)
        left.errorbar(mean, i, xerr=spread, fmt="o", color=colour, ms=4, capsize=3, lw=1)
        rates, losses = _by_rate(found)
        means, low, high = losses.mean(1), losses.min(1), losses.max(1)
        if i < COLOURED:
            style = "--" if name in OTHERS else "-"
            bars = [means - low, high - means]
            right.errorbar(rates, means, bars, ls=style, lw=1.2, capsize=2, label=name)
        else:
            right.plot(rates, means, color="#cccccc", lw=0.8, zorder=0)
    left.set_yticks(range(len(sweeps)), list(sweeps))
    left.invert_yaxis()
    left.set(xlabel=f"{HELD_OUT} at the best settings")
    left.grid(axis="x", color="#dddddd", lw=0.6)
    right.set(xlabel="learning rate", ylabel=HELD_OUT, xscale="log")
    if positive := [mean for mean, _ in map(loss, sweeps.values()) if mean > 0]:
        right.set(yscale="log", ylim=(min(positive) / 1.5, 60 * min(positive)))
    right.legend(
        title=f"the best {COLOURED}" if len(sweeps) > COLOURED else None,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=8,
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def loss(found: Sweep) -> tuple[float, float]:
    """The mean held-out loss of the best settings, and its deviation over seeds."""
    losses = found.scores[HELD_OUT][found.best]
    return float(losses.mean()), float(losses.std(ddof=1)) if len(losses) > 1 else 0.0


def _by_rate(found: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """For each rate the losses of its best point."""
    losses, rates = found.scores[HELD_OUT], found.grid.axes["learning_rate"]
    table = losses.reshape(len(rates), -1, losses.shape[1])
    means = np.nan_to_num(table.mean(2), nan=np.inf)
    return rates, table[np.arange(len(rates)), means.argmin(1)]
