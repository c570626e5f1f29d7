# SPDX-License-Identifier: Apache-2.0
"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from adamx.cli.flags import optional_import

Report = Callable[[int, Mapping[str, float]], None]
"""`report(steps done, figures by name)`."""

LINES = 10


@contextmanager
def progress(
    title: str, steps: int, units: tuple[str, int] = ("steps", 1), start: int = 0
) -> Iterator[Report]:
    """Yields a `Report` to call after each step.

    Args:
      title: the name of the run.
      steps: the number of the last step.
      units: (unit, count per step), for throughput.
      start: how many steps were done before.
    """
    with (_bar if sys.stdout.isatty() else _lines)(title, steps, units, start) as report:
        yield report


@contextmanager
def _bar(title: str, steps: int, units: tuple[str, int], start: int) -> Iterator[Report]:
    """The bar on one line, the figures on the next; both fit a terminal of 80 columns."""
    rich = optional_import("rich.progress", "rich")
    group, live = (
        optional_import("rich.console", "rich").Group,
        optional_import("rich.live", "rich"),
    )
    figures_line = optional_import("rich.text", "rich").Text()
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.TextColumn("{task.completed}/{task.total}"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("left"),
        expand=True,
    )
    task = bar.add_task(title, total=steps, completed=start)
    with live.Live(group(bar, figures_line), refresh_per_second=8):
        speed = _speedometer(start)

        def report(done: int, figures: Mapping[str, float]) -> None:
            bar.update(task, completed=done)
            figures_line.plain = f"{_said(figures)}  {_pace(speed(done), units)}"

        yield report


@contextmanager
def _lines(title: str, steps: int, units: tuple[str, int], start: int) -> Iterator[Report]:
    every = max(1, (steps - start) // LINES)
    speed = _speedometer(start)

    def report(done: int, figures: Mapping[str, float]) -> None:
        pace = speed(done)
        if (done - start) % every == 0 or done == steps:
            print(
                f"{title}  step {done}/{steps}  {_said(figures)}  {_pace(pace, units)}  "
                f"{(steps - done) / pace:.1f} s left",
                flush=True,
            )

    yield report


def _said(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_short(value)}" for name, value in figures.items())


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.1e}"


def _pace(steps: float, units: tuple[str, int]) -> str:
    name, each = units
    return f"{steps * each:,.0f} {name}/s"


def _speedometer(start: int) -> Callable[[int], float]:
    """Steps per second; the first step, which compiles, counts only if it is the only one."""
    began = time.perf_counter()
    first: list[tuple[int, float]] = []

    def speed(done: int) -> float:
        now = time.perf_counter()
        if not first:
            first.append((done, now))
            return (done - start) / (now - began)
        at, since = first[0]
        return (done - at) / (now - since)

    return speed
