# SPDX-License-Identifier: Apache-2.0
"""Train a small model with a recipe of ours: by default a transformer, on Python's own source.

A run has a folder: its settings, its log (`run.jsonl`), its checkpoints, and at the end a page and
a picture of what Adam did. Ctrl-C saves, and --resume goes on as if nothing had happened, with the
settings in the folder.
"""

import argparse
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax

from adamx import health
from adamx.checkpoints import Checkpoints
from adamx.cli import folder, guarding, recipes, spread
from adamx.cli.arguments import UsageError, optional_import, whole
from adamx.cli.exporting import export
from adamx.cli.interrupt import interruptible
from adamx.cli.progress import progress
from adamx.cli.race import Runner, at_the_start, largest_difference, race
from adamx.cli.tasks import TASKS, Defaults, Task, find, quadratic
from adamx.parallel import processes
from adamx.tables import as_text

DTYPES = ("float32", "bfloat16", "float16")
GLANCES = 20  # looks at the held-out loss in a run
TOLD = 3  # findings of the doctor that are printed
# What a run that is gone on with has to keep; what it keeps unless something else is given.
FIXED = (
    "task data seed dtype recipe schedule learning_rate weight_decay clip batch_size watch "
    "storage landing skip_nonfinite skip_spikes loss_scale rewind"
).split()
LOOSE = "steps save_every devices how zero".split()
NORMS = {"gradient": "grad_norm", "update": "update_norm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `train`."""
    add = parser.add_argument
    add(
        "--task",
        default="source",
        metavar="NAME",
        help=f"one of {', '.join(TASKS)}, quadratic (every step of the arithmetic), or a function "
        "of yours, module:function (default: source)",
    )
    add("--data", metavar="DIR", help="the task's data; each has its own by default")
    add("--steps", type=whole(1), metavar="N", help="how many (default: the task's)")
    add("--batch-size", type=whole(1), metavar="N", help="(default: the task's)")
    add("--dtype", choices=DTYPES, default="float32", help="of the parameters (default: float32)")
    add(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of data, parameters and batches (default: 0)",
    )
    add(
        "--compare",
        choices=("optax", "none"),
        default="none",
        help="what trains beside ours on the same batches (default: none)",
    )
    guarding.add_optimizer(parser)
    spread.add_spread(parser)
    add = parser.add_argument_group("what is kept").add_argument
    add("--run", metavar="DIR", help="where it is (default: the next free runs/TASK-N)")
    add(
        "--save-every",
        type=whole(1),
        default=100,
        metavar="N",
        help="steps from one checkpoint to the next; the last step is saved too (default: 100)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from the latest checkpoint in --run (default: the last runs/TASK-N)",
    )
    add(
        "--export",
        metavar="FILE",
        help="at the end write step, model and some batches to a file for `run-exported`",
    )
    # What is not given is None, so that a run that goes on can tell.
    defaults = vars(parser.parse_args([]))
    parser.set_defaults(**dict.fromkeys(defaults), defaults=defaults)


def run(args: argparse.Namespace) -> int:
    """Trains, then prints what was reached."""
    args = _settled(args)
    if args.export:
        optional_import("flatbuffers", "flatbuffers")
    if args.export and (args.distributed or not Path(args.export).absolute().parent.is_dir()):
        raise UsageError(
            f"--export {args.export}: "
            + ("one process only" if args.distributed else "there is no such folder")
        )
    if args.task == "quadratic":
        return _quadratic(args)
    if args.distributed and not args.run:
        raise UsageError("--distributed needs --run DIR, one folder for all processes")
    make, defaults = find(args.task, "quadratic")
    spread.prepare(args)
    size = args.batch_size or defaults.batch_size
    steps = args.steps or defaults.steps
    task = make(args.seed, size, args.data)
    task = task._replace(
        params=guarding.in_dtype(task.params, args.dtype),
        batch=lambda step, batch=task.batch: spread.own_part(batch(step)),
    )
    optimizers = guarding.optimizers(args, defaults, steps)
    if spread.is_first():
        print(f"{' beside '.join(optimizers)}\n{task.title}", flush=True)
    try:
        return _Training(args, task, optimizers, defaults, steps).go()
    except (ValueError, health.TooManySkippedError) as error:
        # A batch that does not divide, a checkpoint of another recipe, a guard at its limit.
        raise UsageError(str(error)) from error


def _settled(args: argparse.Namespace) -> argparse.Namespace:
    """What was given, else what the run had that is gone on with, else the defaults."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    settled = argparse.Namespace(**args.defaults | given)
    if not settled.resume:
        return settled
    if settled.compare != "none":
        raise UsageError("--resume goes on with our run only: add --compare none")
    root = Path(settled.run) if settled.run else folder.latest(settled.task)
    kept = folder.settings(root)
    for name in FIXED:
        if name in given and name in kept and given[name] != kept[name]:
            flag = f"--{name.replace('_', '-')}"
            if kept[name] is False:
                raise UsageError(f"{root}: the run was begun without {flag}")
            raise UsageError(
                f"{root}: the run was begun with {flag} {kept[name]}, not {given[name]}"
            )
    return argparse.Namespace(**vars(settled) | kept | given | {"run": str(root)})


def _quadratic(args: argparse.Namespace) -> int:
    rate = quadratic.RATE if args.learning_rate is None else args.learning_rate
    recipe = "adam" if args.recipe == "adamw" else args.recipe
    opt = recipes.ours(recipe, learning_rate=rate)
    print(quadratic.narrated(opt, rate, args.steps or quadratic.STEPS))
    return 0


class _Training:
    """One run of the command."""

    def __init__(
        self,
        args: argparse.Namespace,
        task: Task,
        optimizers: dict[str, Any],
        defaults: Defaults,
        steps: int,
    ):
        self.args, self.task, self.steps = args, task, steps
        self.size = args.batch_size or defaults.batch_size
        self.speaks = spread.is_first()
        rate = guarding.schedule(args, defaults, steps)
        self.rate: Any = rate if callable(rate) else lambda step: rate
        self.name, self.opt = next(iter(optimizers.items()))
        over, key = spread.over(args), jax.random.key(args.seed) if task.random else None
        self.runners = {k: at_the_start(task, o, over, key) for k, o in optimizers.items()}
        self.ours, self.key = self.runners[self.name], key
        self.glanced = float("nan")
        self.norms = dict.fromkeys(NORMS, float("nan"))
        self.log: Any = None
        self.report: Any = None

    def go(self) -> int:
        """Trains from the start, or from the checkpoint, and ends with a table."""
        root = self._folder()
        if self.speaks:
            print(f"{root}\n", flush=True)
            folder.begin(root, self._config(), self.args.resume)
        with ExitStack() as stack:
            kept = stack.enter_context(self._checkpoints(root))
            stack.enter_context(processes.watched(lambda: _advice(kept)))
            self.kept, start = kept, self._begin(kept, root)
            log = folder.log_until(root, start) if self.speaks else nullcontext()
            self.log = stack.enter_context(log)
            bar = progress(self.name, self.steps, self.task.units, start)
            self.report = stack.enter_context(bar if self.speaks else nullcontext())
            # Of several processes one cannot stop between two steps by itself.
            alone = jax.process_count() == 1
            self.pressed = stack.enter_context(interruptible()) if alone else lambda: False
            race(self.task, self.runners, range(start, self.steps), self._after)
            # All processes make it, or those that do would wait for the others.
            summary = _summary(self.task, self.runners) if self.done == self.steps else ""
        if self.speaks:
            self._end(root, summary)
        if self.args.export and self.done == self.steps:
            run = self.ours.train.collect(self.ours.run)
            export(Path(self.args.export), self.task, self.opt, run, self.steps)
            print(f"written: {self.args.export}")
        return 0 if self.done == self.steps else 130

    def _folder(self) -> Path:
        return Path(self.args.run) if self.args.run else folder.next_free(self.args.task)

    def _config(self) -> dict[str, Any]:
        """What the run goes on with where nothing else is given."""
        had = {name: getattr(self.args, name) for name in FIXED + LOOSE}
        return had | {"batch_size": self.size, "steps": self.steps}

    def _checkpoints(self, root: Path) -> Any:
        if self.args.compare != "none":
            return nullcontext()
        try:
            return Checkpoints(root / folder.CHECKPOINTS, self.opt)
        except ImportError as error:
            raise UsageError(str(error)) from error

    def _begin(self, kept: Checkpoints | None, root: Path) -> int:
        """The step to go on from."""
        if kept is None or kept.latest is None:
            return 0
        if not self.args.resume:
            raise UsageError(
                f"{root} has a checkpoint of step {kept.latest}: add --resume to go on from it, "
                "or take another folder"
            )
        if kept.latest >= self.steps:
            raise UsageError(f"--steps {self.steps}: the checkpoint is of step {kept.latest}")
        like = self.ours.train.like(self.task.params, key=self.key)
        self.ours.run = self.ours.train.spread(kept.restore(like))
        return kept.latest

    def _after(self, done: int) -> bool:
        """After each step: look, log, tell, save; whether to go on."""
        self.done, stops = done, self.pressed()
        if done % max(1, self.steps // GLANCES) == 0 or done == self.steps:
            params = self.ours.params  # all processes have to ask
            self.glanced = float(self.task.glance(params))
            health.check(self.ours.run.state, params)
        rate = float(self.rate(done - 1))
        if self.speaks:
            figures: dict[str, Any] = {"loss": self.ours.loss, "learning rate": rate}
            looked = self.args.watch and (done - 1) % self.args.watch == 0
            if looked:
                figures |= health.read(self.ours.run.state)
                self.norms = {k: figures.get(name, self.norms[k]) for k, name in NORMS.items()}
            if done % max(1, self.steps // GLANCES) == 0 or done == self.steps:
                figures["validation loss"] = self.glanced
            self.log.write(done, figures)
            told = {"loss": self.ours.loss, "validation": self.glanced, "rate": rate}
            self.report(done, told | (self.norms if self.args.watch else {}))
        due = done % self.args.save_every == 0 or done == self.steps or stops
        if self.kept is not None and due:
            self.kept.save(done, self.ours.train.collect(self.ours.run))
        return not stops

    def _end(self, root: Path, summary: str) -> None:
        folder.report(root)
        if self.done < self.steps:
            saved = f"saved at step {self.done}; go on by --resume --run {root}"
            print(f"\ninterrupted: {saved if self.kept is not None else 'nothing is saved'}")
            return
        print(f"\n{summary}\n\n{root / folder.REPORT}")
        findings = health.doctor(health.history(root / folder.LOG))
        print(*findings[:TOLD], sep="\n", end="\n" * bool(findings))
        if len(findings) > TOLD:
            print(f"… and {len(findings) - TOLD} more, on the page")


def _advice(kept: Checkpoints | None) -> str:
    if kept is None or kept.latest is None:
        return "There is no checkpoint: start again."
    return f"Go on from step {kept.latest} by --resume, with as many processes as you have."


def _summary(task: Task, runners: dict[str, Runner]) -> str:
    scores = {name: task.scores(runner.params) for name, runner in runners.items()}
    everyone = list(runners.values())
    rows = [
        [_called(which), *(_cell(which, score[which]) for score in scores.values())]
        for which in next(iter(scores.values()))
    ]
    rows += [[name, said, *[""] * (len(runners) - 1)] for name, said in task.beside]
    rows += [
        ["ms per step", *(f"{runner.milliseconds:.3f}" for runner in everyone)],
        ["bytes of state per device", *(f"{runner.state_bytes:,}" for runner in everyone)],
    ]
    if len(runners) > 1:
        ours, theirs = everyone
        apart = largest_difference(ours.params, theirs.params)
        rows.append(["largest |difference of parameters|", f"{apart:.1e}", ""])
    return as_text(["", *runners], rows)


def _called(which: str) -> str:
    return "final loss" if which == "loss" else which


def _cell(which: str, value: Any) -> str:
    return f"{float(value):.2%}" if which.endswith("accuracy") else f"{float(value):.4g}"
