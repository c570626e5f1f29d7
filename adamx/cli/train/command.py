# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx train`, and what it does."""

import argparse
import math
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax

from adamx import health
from adamx.checkpoints import Checkpoints, NoCheckpointError, SaveError
from adamx.cli import devices, disk, folder
from adamx.cli.export.write import export
from adamx.cli.flags import UsageError, check_file, optional_import
from adamx.cli.progress import Seen, progress
from adamx.cli.tasks import Defaults, Task, find, quadratic
from adamx.cli.train import optimizer, settings
from adamx.cli.train.interrupt import interruptible
from adamx.cli.train.notes import without_effect
from adamx.cli.train.race import at_the_start, race
from adamx.cli.train.settings import Settings
from adamx.cli.train.summary import reached
from adamx.describe import describe
from adamx.health.scalars import first
from adamx.health.states import ObserveState, nodes
from adamx.parallel import processes

GLANCES = 20  # evaluations of the held-out loss per run
HELD_OUT = "validation loss"
TOLD = 3  # findings of the doctor to print
NORMS = {"gradient": "grad_norm", "update": "update_norm"}


def run(flags: argparse.Namespace) -> int:
    """Trains, then prints the results."""
    given = settings.given(flags)
    args = settings.settled(given)
    if args.task == "quadratic":
        return _quadratic(args, given)
    optional_import("matplotlib.figure", "matplotlib")  # for the page at the end
    if args.export:
        optional_import("flatbuffers", "flatbuffers")
        check_file(args.export)
        if args.distributed:
            raise UsageError(f"--export {args.export}: works with one process only")
    if args.step is not None and not args.resume:
        raise UsageError("--step needs --resume")
    if args.distributed and not args.run:
        raise UsageError("--distributed needs --run DIR, one folder for all processes")
    make, defaults = find(args.task, "quadratic")
    if args.distributed:  # an unwritable folder fails before others wait
        folder.make(Path(args.run or ""))
    devices.prepare(args)
    size = args.batch_size or defaults.batch_size
    steps = args.steps or defaults.steps
    task = make(args.seed, size, args.data)
    settings.check_data(args, task.title)
    devices.check_batch(args, size)
    task = task._replace(
        params=optimizer.in_dtype(task.params, args.dtype),
        batch=lambda step, batch=task.batch: devices.own_part(batch(step)),
    )
    optimizers = optimizer.optimizers(args, defaults, steps)
    if devices.is_first():
        notes = without_effect(args, devices.count(args))
        print(" beside ".join(optimizers), task.title, *notes, sep="\n", flush=True)
    if args.describe:
        if devices.is_first():
            print(*(f"\n{k}\n{describe(o, task.params)}" for k, o in optimizers.items()), sep="\n")
        return 0
    try:
        return _Training(args, task, optimizers, defaults, steps).go()
    except SaveError as error:
        raise disk.DiskError(str(error)) from error
    except (ValueError, NoCheckpointError, health.TooManySkippedError) as error:
        # A batch that does not divide, a checkpoint of another recipe, a guard at its limit.
        raise UsageError(str(error)) from error


def _quadratic(args: Settings, given: dict[str, Any]) -> int:
    for name in given:
        if name not in ("task", "steps", "learning_rate", "recipe"):
            raise UsageError(f"--task quadratic has no --{name.replace('_', '-')}")
    if args.recipe not in ("adam", "adamw"):
        raise UsageError("--task quadratic shows Adam's own arithmetic: use --recipe adam")
    rate = quadratic.RATE if args.learning_rate is None else args.learning_rate
    print(quadratic.narrated(rate, args.steps or quadratic.STEPS))
    return 0


class _Training:
    """One run of the command."""

    def __init__(
        self, args: Settings, task: Task, optimizers: dict[str, Any], defaults: Defaults, steps: int
    ):
        self.args, self.task, self.steps = args, task, steps
        self.size = args.batch_size or defaults.batch_size
        self.speaks = devices.is_first()
        rate = optimizer.schedule(args, defaults, steps)
        self.rate: Any = jax.jit(rate) if callable(rate) else lambda step: rate
        self.name, self.opt = next(iter(optimizers.items()))
        over, key = devices.over(args), jax.random.key(args.seed) if task.random else None
        self.runners = {k: at_the_start(task, o, over, key) for k, o in optimizers.items()}
        self.ours, self.key = self.runners[self.name], key
        self.held_out: list[float] = []  # all validation losses so far
        # What the bar shows of steps before the last.
        self.glanced, self.norms = Seen(), dict.fromkeys(NORMS, Seen())
        self.seen = 0
        self.root = Path(args.run) if args.run else folder.next_free(args.task)
        self.to_keep = settings.to_keep(args, batch_size=self.size, steps=steps, title=task.title)
        self.log: Any = None
        self.report: Any = None

    def go(self) -> int:
        """Trains from the start or from the checkpoint, then prints a table."""
        root = self.root
        if self.speaks:
            print(f"{root}\n", flush=True)
            folder.make(root)
        with ExitStack() as stack:
            kept = stack.enter_context(self._checkpoints(root))
            stack.enter_context(processes.watched(lambda: _advice(kept)))
            self.kept = kept
            self.start = start = self._begin(kept, root)
            if self.speaks and (lost := start - len(folder.rows(root, start))):
                print(f"{root / folder.LOG}: {lost} of {start} rows are lost or damaged\n")
            log = folder.log_until(root, start) if self.speaks else nullcontext()
            self.log = stack.enter_context(log)
            bar = progress(self.name, self.steps, self.task.units, start)
            self.report = stack.enter_context(bar if self.speaks else nullcontext())
            # With several processes, one of them cannot stop between two steps on its own.
            alone = jax.process_count() == 1
            self.pressed = stack.enter_context(interruptible()) if alone else lambda: False
            race(self.task, self.runners, range(start, self.steps), self._after)
            # On all processes: collecting the parameters waits for every one of them.
            summary = reached(self.task, self.runners) if self.done == self.steps else ""
        if self.speaks:
            self._end(root, summary)
        if self.args.export and self.done == self.steps:
            run = self.ours.train.collect(self.ours.run)
            export(Path(self.args.export), self.task, self.opt, run, self.steps)
            print(f"written: {self.args.export}")
        return 0 if self.done == self.steps else 130

    def _checkpoints(self, root: Path) -> Any:
        if self.args.compare != "none":
            return nullcontext()
        where = root / folder.CHECKPOINTS
        if self.args.resume and not folder.is_saved(root):
            raise UsageError(
                f"{where}: there is no checkpoint to go on from; begin again in another folder, or "
                f"delete {root} first"
            )
        try:
            with disk.writing(where):
                return Checkpoints(where, self.opt)
        except ImportError as error:
            raise UsageError(str(error)) from error

    def _begin(self, kept: Checkpoints | None, root: Path) -> int:
        """Restores the checkpoint, if there is one; returns the number of steps done."""
        if kept is None or kept.latest is None:
            return 0
        if not self.args.resume:
            raise UsageError(
                f"{root} has a checkpoint of step {kept.latest}: add --resume to go on from it, "
                "or choose another folder"
            )
        step = kept.latest if self.args.step is None else self.args.step
        if step >= self.steps:
            raise UsageError(
                f"--steps {self.steps}: the checkpoint is of step {step}; give more to go on"
            )
        like = self.ours.train.like(self.task.params, key=self.key)
        self.ours.run = self.ours.train.spread(kept.restore(like, step))
        self._has_looked()  # what was seen before is no news
        if self.args.step is not None:
            kept.forget_after(step)
        past = [row[HELD_OUT] for row in folder.rows(root, step) if HELD_OUT in row]
        self.held_out = [float("nan") if loss is None else loss for loss in past]
        return step

    def _after(self, done: int) -> bool:
        """Evaluates, logs, reports and saves after a step; returns whether to go on."""
        self.done, stops = done, self.pressed()
        looks = done % max(1, self.steps // GLANCES) == 0 or done == self.steps
        if looks:
            params = self.ours.params  # all processes have to call this
            self.held_out.append(float(self.task.glance(self.ours.evaluated)))
            self.glanced = Seen(self.held_out[-1], done)
            health.check(self.ours.run.state, params)
            if self._enough():
                self.steps = done
        rate = float(self.rate(done - 1))
        if self.speaks:
            if done == self.start + 1:  # a refused run leaves the settings unchanged
                folder.keep(self.root, self.to_keep)
            figures: dict[str, Any] = {"loss": self.ours.loss, "learning rate": rate}
            if self._has_looked():
                figures |= health.read(self.ours.run.state)
                self.norms = {k: Seen(figures[name], done) for k, name in NORMS.items()}
            elif looks and not self.args.watch:
                figures |= health.read(self.ours.run.state)  # the counts of guards
            if looks:
                figures[HELD_OUT] = self.held_out[-1]
            self.log(done, figures)
            told = {"loss": self.ours.loss, "rate": rate, "validation": self.glanced}
            self.report(done, told | (self.norms if self.args.watch else {}))
        # A run that is NaN would soon have replaced all checkpoints from before.
        due = done % self.args.save_every == 0 and math.isfinite(self.ours.loss)
        due = due or done == self.steps or stops
        if self.kept is not None and due:
            self.kept.save(done, self.ours.train.collect(self.ours.run))
        return not stops and done < self.steps

    def _enough(self) -> str:
        """The reason to end the run before its last step; empty if there is none."""
        args, losses = self.args, self.held_out
        if args.stop_at is not None and health.reached(losses, args.stop_at):
            return f"the validation loss is {losses[-1]:.4g}, --stop-at {args.stop_at:g}"
        if args.stop_on_plateau and health.plateau(losses, args.stop_on_plateau):
            return f"the validation loss has not fallen for {args.stop_on_plateau} looks"
        if args.stop_on_divergence and health.diverged(losses):
            return f"the validation loss has diverged to {losses[-1]:.4g}"
        return ""

    def _has_looked(self) -> bool:
        """Whether the observer recorded this step; a step that was undone does not count."""
        for node in nodes(self.ours.run.state):
            if isinstance(node, ObserveState):
                before, self.seen = self.seen, int(first(node.step))
                return self.seen != before and (self.seen - 1) % self.args.watch == 0
        return False

    def _end(self, root: Path, summary: str) -> None:
        if self.done < self.steps:
            folder.report(root)
            saved = f"saved at step {self.done}; go on with --resume --run {root}"
            print(f"\ninterrupted: {saved if self.kept is not None else 'nothing is saved'}")
            return
        print(f"\n{summary}\n", flush=True)
        if why := self._enough():
            print(f"ended at step {self.done}: {why}")
        folder.report(root)
        print(root / folder.REPORT)
        findings = health.doctor(health.history(root / folder.LOG))
        print(*findings[:TOLD], sep="\n", end="\n" * bool(findings))
        if len(findings) > TOLD:
            print(f"… and {len(findings) - TOLD} more, on the page")


def _advice(kept: Checkpoints | None) -> str:
    if kept is None or kept.latest is None:
        return "There is no checkpoint: start again."
    return f"Go on from step {kept.latest} with --resume, on any number of processes."
