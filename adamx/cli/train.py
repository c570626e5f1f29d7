# SPDX-License-Identifier: Apache-2.0
"""Train a small network with a recipe of ours, beside Optax's.

Both start from the same parameters and see the same batches of scikit-learn's digits. The last
lines compare what they reached, what a step cost and how far apart they ended.
"""

import argparse
from typing import Any

from adamx.cli import recipes
from adamx.cli.arguments import non_negative, whole
from adamx.cli.progress import progress
from adamx.cli.race import Runner, largest_difference, race
from adamx.cli.tasks import Task, digits
from adamx.tables import as_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `train`."""
    add = parser.add_argument
    recipes.add_recipe(parser)
    add(
        "--storage",
        choices=recipes.STORAGES,
        default="float32",
        help="how our moments rest between steps; Optax's stay in float32 (default: float32)",
    )
    add("--steps", type=whole(1), default=1500, metavar="N", help="how many (default: 1500)")
    add("--batch-size", type=whole(1), default=128, metavar="N", help="images (default: 128)")
    add("--learning-rate", type=non_negative, default=1e-3, metavar="X", help="(default: 0.001)")
    add("--weight-decay", type=non_negative, metavar="X", help="(default: the recipe's own)")
    add(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of the split, the parameters and the batches (default: 0)",
    )
    add(
        "--compare",
        choices=("optax", "none"),
        default="optax",
        help="what trains beside ours on the same batches (default: optax)",
    )


def run(args: argparse.Namespace) -> int:
    """Trains, then prints the comparison."""
    optimizers = _optimizers(args)
    task = digits(args.seed, args.batch_size)
    print(f"{' beside '.join(optimizers)}\n{task.title}\n", flush=True)
    with progress(next(iter(optimizers)), args.steps) as report:
        runners = race(task, optimizers, args.steps, report)
    print(f"\n{_summary(task, runners)}")
    return 0


def _optimizers(args: argparse.Namespace) -> dict[str, Any]:
    settings = {"learning_rate": args.learning_rate}
    if args.weight_decay is not None:
        settings["weight_decay"] = args.weight_decay
    optimizers = {
        f"adamx.{args.recipe}": recipes.ours(args.recipe, storage=args.storage, **settings)
    }
    if args.compare == "optax":
        optimizers[f"optax.{args.recipe}"] = recipes.theirs(args.recipe, **settings)
    return optimizers


def _summary(task: Task, runners: dict[str, Runner]) -> str:
    scores = {name: task.scores(runner.params) for name, runner in runners.items()}
    everyone = runners.values()
    rows = [
        ["final loss", *(f"{score['loss']:.3e}" for score in scores.values())],
        *(
            [which, *(f"{score[which]:.2%}" for score in scores.values())]
            for which in ("train accuracy", "test accuracy")
        ),
        ["ms per step", *(f"{runner.milliseconds:.3f}" for runner in everyone)],
        ["bytes of optimizer state", *(f"{runner.state_bytes:,}" for runner in everyone)],
    ]
    if len(runners) > 1:
        ours, theirs = everyone
        apart = largest_difference(ours.params, theirs.params)
        rows.append(["largest |difference of parameters|", f"{apart:.1e}", ""])
    return as_text(["", *runners], rows)
