# SPDX-License-Identifier: Apache-2.0
"""Train a small network with a recipe of ours, beside Optax's.

Both start from the same parameters and see the same batches of scikit-learn's digits. The last
lines compare what they reached, what a step cost and how far apart they ended.
"""

import argparse
from contextlib import nullcontext
from typing import Any

from adamx import landing
from adamx.checkpoints import Checkpoints
from adamx.cli import recipes, spread
from adamx.cli.arguments import UsageError, non_negative, whole
from adamx.cli.progress import progress
from adamx.cli.race import Runner, at_the_start, largest_difference, race
from adamx.cli.tasks import Task, digits
from adamx.parallel import processes
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
    add(
        "--landing",
        choices=tuple(landing.NAMED),
        default="nearest",
        help="how our steps land in half-precision parameters (default: nearest)",
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
    spread.add_spread(parser)
    add = parser.add_argument_group("checkpoints").add_argument
    add("--checkpoint", metavar="DIR", help="keep checkpoints of our run in this folder")
    add(
        "--save-every",
        type=whole(1),
        default=100,
        metavar="N",
        help="steps from one to the next; the last step is saved too (default: 100)",
    )
    add("--resume", action="store_true", help="go on from the latest checkpoint in --checkpoint")


def run(args: argparse.Namespace) -> int:
    """Trains, then prints the comparison."""
    if args.resume and not args.checkpoint:
        raise UsageError("--resume needs --checkpoint DIR, the folder to go on from")
    if args.checkpoint and args.compare != "none":
        raise UsageError("--checkpoint keeps our run only: add --compare none")
    spread.prepare(args)
    optimizers = _optimizers(args)
    task = digits(args.seed, args.batch_size)
    task = task._replace(batches=lambda batches=task.batches: map(spread.own_part, batches()))
    say = print if spread.is_first() else _nothing
    say(f"{' beside '.join(optimizers)}\n{task.title}\n", flush=True)
    try:
        runners = _trained(args, task, optimizers)
    except ValueError as error:  # a batch that does not divide, a checkpoint of another recipe
        raise UsageError(str(error)) from error
    summary = _summary(task, runners)
    say(f"\n{summary}")
    return 0


def _trained(args: argparse.Namespace, task: Task, optimizers: dict[str, Any]) -> dict[str, Runner]:
    name, opt = next(iter(optimizers.items()))
    over = spread.over(args)
    runners = {name: at_the_start(task, opt, over) for name, opt in optimizers.items()}
    ours = runners[name]
    with _kept(args, opt) as kept, processes.watched(lambda: _advice(kept)):
        start = 0
        if kept is not None and not args.resume and kept.latest is not None:
            raise UsageError(
                f"{args.checkpoint} has a checkpoint of step {kept.latest}: add --resume to go on "
                "from it, or take another folder"
            )
        if args.resume and kept is not None:
            start = kept.latest or 0
            ours.run = ours.train.spread(kept.restore(ours.train.like(task.params)))

        def save(step: int) -> None:
            if kept is not None and (step % args.save_every == 0 or step == args.steps):
                kept.save(step, ours.train.collect(ours.run))

        if start >= args.steps:
            raise UsageError(f"--steps {args.steps}: the checkpoint is of step {start} already")
        following = progress(name, args.steps) if spread.is_first() else nullcontext(_nothing)
        with following as report:
            race(task, runners, range(start, args.steps), report, save)
    return runners


def _kept(args: argparse.Namespace, opt: Any) -> Any:
    if not args.checkpoint:
        return nullcontext()
    try:
        return Checkpoints(args.checkpoint, opt)
    except ImportError as error:
        raise UsageError(str(error)) from error


def _advice(kept: Checkpoints | None) -> str:
    if kept is None or kept.latest is None:
        return "There is no checkpoint: start again."
    return f"Go on from step {kept.latest} by --resume, with as many processes as you have."


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What a process says that is not the first."""


def _optimizers(args: argparse.Namespace) -> dict[str, Any]:
    settings = {"learning_rate": args.learning_rate}
    if args.weight_decay is not None:
        settings["weight_decay"] = args.weight_decay
    optimizers = {
        f"adamx.{args.recipe}": recipes.ours(
            args.recipe, storage=args.storage, landing=args.landing, **settings
        )
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
        ["bytes of state per device", *(f"{runner.state_bytes:,}" for runner in everyone)],
    ]
    if len(runners) > 1:
        ours, theirs = everyone
        apart = largest_difference(ours.params, theirs.params)
        rows.append(["largest |difference of parameters|", f"{apart:.1e}", ""])
    return as_text(["", *runners], rows)
