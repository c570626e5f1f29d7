# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: its settings, its log, its checkpoints, its report and picture."""

import json
from pathlib import Path
from typing import Any

from adamx.cli.arguments import UsageError
from adamx.health import JsonLines, history, page, plot

CONFIG, LOG, CHECKPOINTS = "config.json", "run.jsonl", "checkpoints"
REPORT, PICTURE = "report.html", "run.png"


def next_free(task: str) -> Path:
    """The first of `runs/task-1`, `runs/task-2` … that is not there yet."""
    name = task.replace(":", "-")
    return next(p for i in range(1, 10**6) if not (p := Path("runs") / f"{name}-{i}").exists())


def latest(task: str) -> Path:
    """The last of them."""
    name = task.replace(":", "-")
    found = [p for p in Path("runs").glob(f"{name}-*") if p.name.rpartition("-")[2].isdecimal()]
    if not found:
        raise UsageError(f"--resume: there is no runs/{name}-N; say which folder by --run DIR")
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]))


def settings(folder: Path) -> dict[str, Any]:
    """What the run in the folder was begun with; nothing if there is none."""
    kept = folder / CONFIG
    return json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}


def begin(folder: Path, config: dict[str, Any], resume: bool) -> None:
    """Makes the folder and writes the settings."""
    kept = folder / CONFIG
    if kept.is_file() and not resume:
        raise UsageError(
            f"{folder} has a run in it: add --resume to go on with it, or take another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error


def log_until(folder: Path, step: int) -> JsonLines:
    """The log, opened to go on after this step; rows of later ones, which come again, go."""
    path = folder / LOG
    rows = [row for row in history(path) if row["step"] <= step] if path.is_file() else []
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return JsonLines(path)


def report(folder: Path) -> None:
    """Writes the page and the picture."""
    rows = history(folder / LOG)
    (folder / REPORT).write_text(page(rows, folder.name), encoding="utf-8")
    plot(rows, folder.name).savefig(folder / PICTURE, dpi=100)
