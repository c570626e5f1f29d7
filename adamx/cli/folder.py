# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: settings, log, checkpoints, report and picture."""

import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adamx.cli import disk
from adamx.cli.flags import UsageError
from adamx.health import JsonLines, history, page, plot
from adamx.health.read import NOT_FINITE, as_line, numbers

CONFIG, LOG, CHECKPOINTS = "config.json", "run.jsonl", "checkpoints"
REPORT, PICTURE = "report.html", "run.png"


def next_free(task: str) -> Path:
    """The first of `runs/task-1`, `runs/task-2` … that does not exist yet."""
    name = task.replace(":", "-")
    return next(p for i in range(1, 10**6) if not (p := Path("runs") / f"{name}-{i}").exists())


def latest(task: str) -> Path:
    """The folder `runs/task-N` with the highest N that has a run in it."""
    name = task.replace(":", "-")
    found = {
        int(number): path
        for path in Path("runs").glob(f"{name}-*")
        for kind, _, number in [path.name.rpartition("-")]
        if kind == name and number.isdecimal() and (path / CONFIG).is_file()
    }
    if not found:
        raise UsageError(f"--resume: there is no runs/{name}-N; name the folder with --run DIR")
    return found[max(found)]


def settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in the folder; empty if there is no run."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {disk.why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not the settings of a run: {error}") from error
    if not isinstance(kept, dict):
        raise UsageError(f"{path}: not the settings of a run, but a {type(kept).__name__}")
    if _checksum(kept) != kept.pop("checksum", _checksum(kept)):
        raise UsageError(
            f"{path}: not the settings that the run was begun with; if you have changed them, "
            'remove the line "checksum"'
        )
    return kept


def _checksum(config: dict[str, Any]) -> int:
    plain = {name: value for name, value in config.items() if name != "checksum"}
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())


def make(folder: Path) -> None:
    """Creates the folder."""
    with disk.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def keep(folder: Path, config: dict[str, Any]) -> None:
    """Writes the settings atomically, with a checksum."""
    config = {**config, "checksum": _checksum(config)}
    disk.write_whole(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def is_saved(folder: Path) -> bool:
    """Whether there is a checkpoint, damaged or not."""
    kept = folder / CHECKPOINTS
    return kept.is_dir() and any(path.name.isdecimal() for path in kept.iterdir())


@contextmanager
def log_until(folder: Path, step: int) -> Iterator[Callable[[int, dict[str, Any]], None]]:
    """Yields a function that logs the figures of a step, to continue after this one.

    Deletes rows of later steps, which run again, and damaged ones.
    """
    path = folder / LOG
    text = "".join(map(as_line, rows(folder, step)))
    disk.write_whole(path, text)

    def write(step: int, figures: dict[str, Any]) -> None:
        with disk.writing(path):
            log.write(step, figures)

    with disk.writing(path):
        log = JsonLines(path)
    try:
        yield write
    finally:
        with disk.writing(path):  # closing writes what is left
            log.__exit__(None, None, None)


def rows(folder: Path, step: int) -> list[dict[str, Any]]:
    """The rows of the log up to this step, without damaged ones."""
    path = folder / LOG
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []
    except OSError as error:
        raise UsageError(f"cannot read {path}: {disk.why(error)}") from error
    found, last = [], 0
    for line in lines:
        row = _row(line)
        if row is not None and last < row["step"] <= step:
            found.append(row)
            last = row["step"]
    return found


def _row(line: str) -> dict[str, Any] | None:
    """A line of the log as `JsonLines` writes it, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # a crash has cut it short, or a disk has changed it
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int or "loss" not in row:
        return None
    whole = all(map(_is_figure, row.values()))
    return numbers(row) if whole else None


def _is_figure(value: Any) -> bool:
    """Whether `JsonLines` may have written this value, which spells numbers that are not finite."""
    if type(value) in (int, float):
        return abs(value) <= sys.float_info.max  # NaN is not
    return value is None or (isinstance(value, str) and value in NOT_FINITE)


def report(folder: Path) -> None:
    """Writes the page and the picture."""
    rows = history(folder / LOG)
    disk.write_whole(folder / REPORT, page(rows, folder.name))
    with disk.writing(folder / PICTURE):
        plot(rows, folder.name).savefig(folder / PICTURE, dpi=100)
