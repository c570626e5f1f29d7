# SPDX-License-Identifier: Apache-2.0
"""How a run shows where it is: a bar on a terminal, plain lines anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adamx.cli.arguments import optional_import

Report = Callable[[int, float, float], None]
"""`report(steps done, loss, accuracy)`."""

LINES = 10


@contextmanager
def progress(title: str, steps: int) -> Iterator[Report]:
    """Yields the function to call after each step."""
    with (_bar if sys.stdout.isatty() else _lines)(title, steps) as report:
        yield report


@contextmanager
def _bar(title: str, steps: int) -> Iterator[Report]:
    rich = optional_import("rich.progress", "rich")
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.TextColumn("{task.completed}/{task.total}"),
        rich.TextColumn("loss {task.fields[loss]:.4f}"),
        rich.TextColumn("accuracy {task.fields[accuracy]:.1%}"),
        rich.TextColumn("{task.fields[speed]:.0f} steps/s"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("left"),
    )
    with rich.Progress(*columns) as bar:
        nothing = float("nan")
        task = bar.add_task(title, total=steps, loss=nothing, accuracy=nothing, speed=nothing)
        speed = _speedometer()

        def report(done: int, loss: float, accuracy: float) -> None:
            bar.update(task, completed=done, loss=loss, accuracy=accuracy, speed=speed(done))

        yield report


@contextmanager
def _lines(title: str, steps: int) -> Iterator[Report]:
    every = max(1, steps // LINES)
    speed = _speedometer()

    def report(done: int, loss: float, accuracy: float) -> None:
        pace = speed(done)
        if done % every == 0 or done == steps:
            print(
                f"{title}  step {done}/{steps}  loss {loss:.4f}  accuracy {accuracy:.1%}  "
                f"{pace:.0f} steps/s  {(steps - done) / pace:.1f} s left",
                flush=True,
            )

    yield report


def _speedometer() -> Callable[[int], float]:
    """Steps per second; the first step, which compiles, counts only where it is the only one."""
    began = time.perf_counter()
    first: list[tuple[int, float]] = []

    def speed(done: int) -> float:
        now = time.perf_counter()
        if not first:
            first.append((done, now))
            return done / (now - began)
        start, since = first[0]
        return (done - start) / (now - since)

    return speed
