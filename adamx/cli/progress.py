# SPDX-License-Identifier: Apache-2.0
"""Shows the progress of a run: a bar on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple

from adamx.cli.flags import optional_import


class Seen(NamedTuple):
    """A figure that is not taken at every step: its last value, None before the first, and when."""

    value: float | None = None
    step: int = 0


Report = Callable[[int, Mapping[str, float | Seen]], None]
"""`report(steps done, figures by name)`."""

LINES = 10


@contextmanager
def progress(
    title: str, steps: int, units: tuple[str, int] = ("steps", 1), start: int = 0
) -> Iterator[Report]:
    """Yields a `Report` to call after each step, up to the number `steps`. `units` are (unit, count
    per step), for throughput; `start` is how many steps were done before."""
    with (_bar if sys.stdout.isatty() else _lines)(title, steps, units, start) as report:
        yield report


@contextmanager
def _bar(title: str, steps: int, units: tuple[str, int], start: int) -> Iterator[Report]:
    """The bar, the figures of this step, those of earlier ones: lines for 80 columns."""
    parts = ("progress", "console", "live", "text")
    rich, console, live, text = (optional_import(f"rich.{part}", "rich") for part in parts)
    lines = text.Text("compiling …\n")
    bar = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.TextColumn("{task.completed}/{task.total}"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("left"),
        expand=True,
    )
    task = bar.add_task(title, total=steps, completed=start)
    with live.Live(console.Group(bar, lines), refresh_per_second=8):
        speed = _speedometer(start)

        def report(done: int, figures: Mapping[str, float | Seen]) -> None:
            bar.update(task, completed=done)
            new = {k: x for k, x in figures.items() if not isinstance(x, Seen)}
            old = {k: x for k, x in figures.items() if isinstance(x, Seen)}
            lines.plain = f"{_said(new, done)}  {_pace(speed(done), units)}\n{_said(old, done)}"

        yield report


@contextmanager
def _lines(title: str, steps: int, units: tuple[str, int], start: int) -> Iterator[Report]:
    every = max(1, (steps - start) // LINES)
    speed = _speedometer(start)

    def report(done: int, figures: Mapping[str, float | Seen]) -> None:
        pace = speed(done)
        if (done - start) % every == 0 or done == steps:
            print(
                f"{title}  step {done}/{steps}  {_said(figures, done)}  {_pace(pace, units)}  "
                f"{(steps - done) / pace:.1f} s left",
                flush=True,
            )

    yield report


def _said(figures: Mapping[str, float | Seen], done: int) -> str:
    """The figures in words; those of an earlier step are followed by it, once for neighbours."""
    parts = []
    seen = [(k, x if isinstance(x, Seen) else Seen(x, done)) for k, x in figures.items()]
    for step, group in groupby(seen, lambda pair: pair[1].step):
        parts += [f"{name} {_short(figure.value)}" for name, figure in group]
        if step not in (0, done):
            parts[-1] += f" (step {step})"
    return "  ".join(parts)


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
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
