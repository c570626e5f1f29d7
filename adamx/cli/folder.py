# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: settings, log, checkpoints, report and picture."""

import json
from pathlib import Path
from typing import Any

from adamx.cli.flags import UsageError
from adamx.health import JsonLines, history, page, plot

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
    kept = folder / CONFIG
    try:
        return json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    except ValueError as error:
        raise UsageError(f"{kept}: not the settings of a run: {error}") from error


def make(folder: Path) -> None:
    """Creates the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error


def keep(folder: Path, config: dict[str, Any]) -> None:
    """Writes the settings atomically."""
    new = folder / f"{CONFIG}.new"
    new.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / CONFIG)


def log_until(folder: Path, step: int) -> JsonLines:
    """Opens the log to continue after this step; deletes rows of later steps, which run again."""
    path = folder / LOG
    rows = [row for row in history(path) if row["step"] <= step] if path.is_file() else []
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return JsonLines(path)


def held_out(folder: Path, step: int) -> list[float]:
    """The validation losses in the log up to this step."""
    path = folder / LOG
    rows = [row for row in history(path) if row["step"] <= step] if path.is_file() else []
    return [row["validation loss"] for row in rows if "validation loss" in row]


def report(folder: Path) -> None:
    """Writes the page and the picture."""
    rows = history(folder / LOG)
    (folder / REPORT).write_text(page(rows, folder.name), encoding="utf-8")
    plot(rows, folder.name).savefig(folder / PICTURE, dpi=100)
