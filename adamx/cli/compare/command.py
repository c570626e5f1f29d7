# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx compare`, and what it does."""

import argparse
import time

import numpy as np

from adamx.cli.compare.grid import grid_of
from adamx.cli.compare.halving import cost, rungs_of
from adamx.cli.compare.picture import loss, picture
from adamx.cli.compare.results import AROUND, advice, around, check_results, shown, write
from adamx.cli.compare.sweep import HELD_OUT, OPTIMIZERS, Sweep, builder, sweep
from adamx.cli.disk import writing
from adamx.cli.flags import UsageError, add_names, check_picture, numbers, whole
from adamx.cli.tasks import add_task, find
from adamx.core.tables import as_markdown, as_text

LOWEST, HIGHEST, RATES = 1e-4, 3.0, 10
ACCURACY = "test accuracy"
COLUMNS = {"learning_rate": "best rate", "weight_decay": "decay", "b2": "b2"}


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
    add(
        "--weight-decays",
        type=numbers,
        metavar="NUMBERS",
        help="decays to try with each rate, by optimizers that have one (default: their own)",
    )
    add(
        "--b2s",
        type=numbers,
        metavar="NUMBERS",
        help="values of b2 to try with each rate, by optimizers that have it (default: their own)",
    )
    add("--steps", type=whole(1), default=200, metavar="N", help="steps of each run (default: 200)")
    add("--seeds", type=whole(1), default=3, metavar="N", help="runs at each rate (default: 3)")
    add(
        "--halvings",
        type=whole(0, 16),
        default=0,
        metavar="N",
        help="how often the worse half of all settings is dropped; those that are left train twice "
        "as long each time, up to --steps (default: 0, every setting trains to the end)",
    )
    add("--picture", metavar="FILE", help="write a picture, as .png, .svg or .pdf")
    add("--results", metavar="FILE", help="write every run, as .csv or .json")
    add("--markdown", action="store_true", help="print Markdown tables")


def run(args: argparse.Namespace) -> int:
    """Sweeps one optimizer after the other and prints the tables, best first."""
    if args.picture:
        check_picture("--picture", args.picture)
    if args.results:
        check_results(args.results)
    if args.b2s and args.b2s[-1] >= 1:
        raise UsageError(f"--b2s must be below 1, got {args.b2s[-1]:g}")
    others = {"weight_decay": args.weight_decays, "b2": args.b2s}
    others = {name: np.array(values) for name, values in others.items() if values}
    rates = np.array(args.learning_rates or np.geomspace(LOWEST, HIGHEST, RATES))
    grids = {name: grid_of(builder(name), rates, others) for name in args.optimizers}
    points = len(rates) * int(np.prod([len(values) for values in others.values()]))
    rungs = rungs_of(points, args.steps, args.halvings)
    make, defaults = find(args.task)
    size = args.batch_size or defaults.batch_size
    tasks = [make(seed, size, args.data) for seed in range(args.seeds)]
    runs = f"{len(args.optimizers)} optimizers x {points * args.seeds} runs"
    budget = f", {cost(rungs) * args.seeds:,} steps each" if args.halvings else ""
    print(f"{tasks[0].title}\n{runs}{budget}", flush=True)
    sweeps, rows = {}, {}
    for name in args.optimizers:
        start = time.perf_counter()
        sweeps[name] = sweep(name, tasks, grids[name], rungs)
        rows[name] = _row(name, sweeps[name], list(others), time.perf_counter() - start)
        print("  ".join(rows[name]), flush=True)
    order = sorted(sweeps, key=lambda name: np.nan_to_num(loss(sweeps[name])[0], nan=np.inf))
    sweeps = {name: sweeps[name] for name in order}
    tables = as_markdown if args.markdown else as_text
    print(f"\n{tables(_header(list(others)), [rows[name] for name in order])}")
    if beside := [row for name in order for row in around(name, sweeps[name])]:
        print(f"\n{tables(AROUND, beside)}")
    if said := [line for name in order for line in advice(name, sweeps[name])]:
        print(*([] if beside else [""]), *said, sep="\n")
    if args.picture:
        with writing(args.picture):
            picture(sweeps).savefig(args.picture, dpi=120)
        print(f"\nwritten: {args.picture}")
    if args.results:
        about = {"task": args.task, "batch_size": size, "steps": args.steps, "seeds": args.seeds}
        write(args.results, {**about, "halvings": args.halvings}, sweeps)
        print(f"\nwritten: {args.results}")
    return 0


def _header(others: list[str]) -> list[str]:
    settings = [COLUMNS[name] for name in ("learning_rate", *others)]
    return ["", *settings, HELD_OUT, "accuracy", "rates that train", "diverged", "s"]


def _row(name: str, found: Sweep, others: list[str], seconds: float) -> list[str]:
    mean, spread = loss(found)
    right = found.scores.get(ACCURACY)
    accuracy = "" if right is None else f"{right[found.best].mean():.1%}"
    points = found.grid.points
    trains = points["learning_rate"][found.trains]
    span = f"{trains.min():.2g} to {trains.max():.2g}" if trains.size else "none"
    settings = ("learning_rate", *others)
    known = points if found.has_best else {}
    best = [shown(k, known[k][found.best]) if k in known else "" for k in settings]
    lost = f"{np.isnan(found.losses).sum()} of {found.losses.size}"
    return [name, *best, f"{mean:.3g} ± {spread:.2g}", accuracy, span, lost, f"{seconds:.0f}"]
