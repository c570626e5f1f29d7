# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx compare`, and what it does."""

import argparse
import time
from typing import Any

import numpy as np

from adamx.cli.compare.sweep import HELD_OUT, OPTIMIZERS, OTHERS, Sweep, sweep
from adamx.cli.disk import writing
from adamx.cli.flags import add_names, check_picture, numbers, optional_import, whole
from adamx.cli.tasks import add_task, find
from adamx.core.tables import as_markdown, as_text

LOWEST, HIGHEST, RATES = 1e-4, 3.0, 10
HEADER = ["", "best rate", HELD_OUT, "accuracy", "rates that train", "s"]
ACCURACY = "test accuracy"
COLOURED = 7  # as many lines as the eye can tell apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `compare`."""
    add = parser.add_argument
    add_names(parser, "--optimizers", OPTIMIZERS, "optimizers to compare")
    add_task(parser, "digits")
    add(
        "--learning-rates",
        type=numbers,
        metavar="NUMBERS",
        help=f"rates, separated by commas (default: {RATES}, from {LOWEST:g} to {HIGHEST:g})",
    )
    add("--steps", type=whole(1), default=200, metavar="N", help="steps of each run (default: 200)")
    add("--seeds", type=whole(1), default=3, metavar="N", help="runs at each rate (default: 3)")
    add("--picture", metavar="FILE", help="write a picture, as .png, .svg or .pdf")
    add("--markdown", action="store_true", help="print a Markdown table")


def run(args: argparse.Namespace) -> int:
    """Sweeps one optimizer after the other and prints the table, best first."""
    if args.picture:
        check_picture("--picture", args.picture)
    make, defaults = find(args.task)
    size = args.batch_size or defaults.batch_size
    tasks = [make(seed, size, args.data) for seed in range(args.seeds)]
    rates = np.array(args.learning_rates or np.geomspace(LOWEST, HIGHEST, RATES))
    runs = len(rates) * args.seeds
    print(f"{tasks[0].title}\n{len(args.optimizers)} optimizers x {runs} runs", flush=True)
    sweeps, rows = {}, {}
    for name in args.optimizers:
        start = time.perf_counter()
        sweeps[name] = sweep(name, tasks, rates, args.steps)
        rows[name] = _row(name, sweeps[name], time.perf_counter() - start)
        print("  ".join(rows[name]), flush=True)
    order = sorted(sweeps, key=lambda name: np.nan_to_num(_loss(sweeps[name])[0], nan=np.inf))
    table = (as_markdown if args.markdown else as_text)(HEADER, [rows[name] for name in order])
    print(f"\n{table}")
    if args.picture:
        with writing(args.picture):
            picture({name: sweeps[name] for name in order}).savefig(args.picture, dpi=120)
        print(f"\nwritten: {args.picture}")
    return 0


def picture(sweeps: dict[str, Sweep]) -> Any:
    """Held-out losses: left at the best rates, right over all rates, the best few in colour.

    Bars are standard deviations over seeds on the left, minimum to maximum on the right.
    """
    figure_of = optional_import("matplotlib.figure", "matplotlib").Figure
    figure = figure_of(figsize=(11, 1.5 + 0.26 * max(8, len(sweeps))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    for i, (name, found) in enumerate(sweeps.items()):
        colour = "#d55e00" if name in OTHERS else "#0072b2"
        mean, spread = _loss(found)
        left.errorbar(mean, i, xerr=spread, fmt="o", color=colour, ms=4, capsize=3, lw=1)
        losses = found.scores[HELD_OUT]
        means, low, high = losses.mean(1), losses.min(1), losses.max(1)
        if i < COLOURED:
            style = "--" if name in OTHERS else "-"
            bars = [means - low, high - means]
            right.errorbar(found.rates, means, bars, ls=style, lw=1.2, capsize=2, label=name)
        else:
            right.plot(found.rates, means, color="#cccccc", lw=0.8, zorder=0)
    left.set_yticks(range(len(sweeps)), list(sweeps))
    left.invert_yaxis()
    left.set(xlabel=f"{HELD_OUT} at the best rate")
    left.grid(axis="x", color="#dddddd", lw=0.6)
    right.set(xlabel="learning rate", ylabel=HELD_OUT, xscale="log")
    if positive := [mean for mean, _ in map(_loss, sweeps.values()) if mean > 0]:
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


def _loss(found: Sweep) -> tuple[float, float]:
    losses = found.scores[HELD_OUT][found.best]
    return float(losses.mean()), float(losses.std(ddof=1)) if len(losses) > 1 else 0.0


def _row(name: str, found: Sweep, seconds: float) -> list[str]:
    mean, spread = _loss(found)
    right = found.scores.get(ACCURACY)
    accuracy = "" if right is None else f"{right[found.best].mean():.1%}"
    trains = found.rates[found.trains]
    span = f"{trains.min():.2g} to {trains.max():.2g}" if trains.size else "none"
    best = f"{found.rates[found.best]:.2g}"
    return [name, best, f"{mean:.3g} ± {spread:.2g}", accuracy, span, f"{seconds:.0f}"]
