# SPDX-License-Identifier: Apache-2.0
"""Reads the figures in a state as plain numbers, for any logger."""

import json
import math
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from adamx.health import trend
from adamx.health.scalars import first
from adamx.health.states import (
    KINDS,
    CountedState,
    LossScaleState,
    ObserveState,
    RewindState,
    SkipState,
)

NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def read(state: optax.OptState) -> dict[str, float]:
    """All figures in a state, by name.

    The state may come from `jit`, a mesh or `pmap` (whose rows are equal; the first is read). The
    call blocks until the step that made the state is done. Counts of several guards are added;
    figures of an observer in a group of `adamx.groups` carry the group's pattern.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> opt = health.skip_nonfinite(adamx.adam(0.1))
      >>> health.read(opt.init(jnp.ones(3)))
      {'skipped': 0.0, 'skipped_in_a_row': 0.0}
    """
    found: dict[str, float] = {}
    for group, node in _with_groups(state):
        for name, value in _FIGURES[type(node)](node).items():
            if isinstance(node, ObserveState) and group and "/" not in name:
                name = f"{name}/{group}"
            x = float(first(value))
            found[name] = (
                _TOGETHER[name](found[name], x) if name in found and name in _TOGETHER else x
            )
    return found


def _with_groups(state: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """All observers and guards, outermost first, and the pattern of the group each is in."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: isinstance(x, KINDS))
    for path, node in paths:
        if isinstance(node, KINDS):
            keys = [getattr(at, "key", "") for at in path]
            tables = [getattr(at, "name", "") == "inner_states" for at in path]
            labels = [str(key) for key, is_label in zip(keys[1:], tables, strict=False) if is_label]
            here = (labels or [group])[-1]
            yield here, node
            yield from _with_groups(node.inner, here)


def _skipped(node: SkipState) -> dict[str, Any]:
    what = "skipped" if node.usual is None else "spikes"
    return {what: node.total, f"{what}_in_a_row": node.in_a_row}


_FIGURES: dict[type, Callable[[Any], dict[str, Any]]] = {
    ObserveState: lambda node: node.figures | trend.figures(jax.tree.map(first, node.trend)),
    SkipState: _skipped,
    CountedState: lambda node: {"clipped": node.total, "clip_rate": node.rate},
    LossScaleState: lambda node: {"loss_scale": node.scale, "overflows": node.overflows},
    RewindState: lambda node: {"rewinds": node.total},
}


_COUNTS = ("skipped", "spikes", "clipped", "overflows", "rewinds")
_RECENT = ("skipped_in_a_row", "spikes_in_a_row", "clip_rate")
_TOGETHER = {**dict.fromkeys(_COUNTS, operator.add), **dict.fromkeys(_RECENT, max)}


class JsonLines:
    """A log file of figures, with one JSON object per line.

    Example:
      >>> import tempfile, pathlib
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.jsonl"
      >>> with JsonLines(path) as log:
      ...     log.write(1, {"loss": 0.5, "grad_norm": float("nan")})
      >>> [(row["step"], row["loss"], row["grad_norm"]) for row in history(path)]
      [(1, 0.5, nan)]
    """

    def __init__(self, path: Any):
        begins = _ends_a_line(Path(path))
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115, closed by __exit__
        if not begins:
            self._file.write("\n")

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Appends a line; NaN and infinities become strings, as JSON has no such numbers."""
        row = {"step": int(step), "time": round(time.time(), 3)}
        self._file.write(as_line(row | {k: _short(float(x)) for k, x in figures.items()}))
        self._file.flush()


def _ends_a_line(path: Path) -> bool:
    """Whether a row may follow what is in a file: a crash may have cut its last line short."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def as_line(row: dict[str, Any]) -> str:
    """A row as a line of the log, in strict JSON."""
    return json.dumps({k: _named(x) for k, x in row.items()}, allow_nan=False) + "\n"


def _named(x: Any) -> Any:
    if not isinstance(x, float) or math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def _short(x: float) -> float:
    """A float32 with the fewest digits that identify it."""
    if not math.isfinite(x):
        return x
    short = np.float32(x) if abs(x) < 1e38 else x
    return float(str(short)) if float(short) == x else x


def history(path: Any) -> list[dict[str, Any]]:
    """The rows of a `JsonLines` file, without lines that a crash has cut short.

    NaN and infinities are numbers again. A loss of null, as older logs have it, is NaN.

    Example:
      >>> import os, tempfile
      >>> path = os.path.join(tempfile.mkdtemp(), "run.jsonl")
      >>> with JsonLines(path) as log:
      ...     log.write(1, {"loss": 0.5})
      >>> history(path)[0]["loss"]
      0.5
    """
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        rows.append(numbers(row) if isinstance(row, dict) else row)
    return rows


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the log with its spelled NaN and infinities, and any scalars, as numbers."""
    found = {k: _number(x) for k, x in row.items()}
    return found | {"loss": math.nan} if found.get("loss", 0) is None else found


def figures_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a row, without what other loggers write beside them."""
    return {k: x for k, x in numbers(dict(row)).items() if isinstance(x, int | float)}


def _number(x: Any) -> Any:
    if isinstance(x, str):
        return float(x) if x in NOT_FINITE else x
    if hasattr(x, "dtype") and np.size(x) == 1:  # a scalar of NumPy or JAX
        x = np.asarray(x).reshape(())
        return int(x) if np.issubdtype(x.dtype, np.integer) else float(x)
    if isinstance(x, int) and abs(x) > sys.float_info.max:
        return math.inf if x > 0 else -math.inf
    return x
