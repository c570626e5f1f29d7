# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx report`, and what it does."""

import argparse
import math
from pathlib import Path

from adamx.cli.flags import PICTURES, UsageError, check_picture, optional_import
from adamx.cli.folder import LOG, REPORT
from adamx.cli.report import side_by_side
from adamx.core.tables import as_text
from adamx.health import doctor, history
from adamx.health.read import figures_of
from adamx.health.report.doctor import WELL, too_short
from adamx.health.report.page import page
from adamx.health.report.plot import History


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `report`."""
    add = parser.add_argument
    add("logs", nargs="+", metavar="FILE", help=f"a JSON-lines file, or a folder with {LOG} in it")
    add(
        "--out",
        metavar="FILE",
        help="the output (default: report.html beside FILE; for several files, ./runs.png)",
    )
    add("--title", metavar="TEXT", help="the title of the page (default: the folder's name)")


def run(args: argparse.Namespace) -> int:
    """Writes the page and prints the doctor's findings; for several runs, a picture and a table."""
    optional_import("matplotlib", "matplotlib")
    paths = [Path(log) / LOG if Path(log).is_dir() else Path(log) for log in args.logs]
    histories = [_rows(path) for path in paths]
    try:
        if len(paths) > 1:
            out = _beside(args, paths, histories)
        else:
            out = _page(args, paths[0], histories[0])
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"\nwritten: {out}")
    return 0


def _rows(path: Path) -> History:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        found = history(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a log of figures: {error}") from error
    rows = [figures_of(row) for row in found if isinstance(row, dict)]
    rows = [row for row in rows if math.isfinite(row.get("step", math.nan))]
    if not rows:
        raise UsageError(f"{path}: no line has a step; is this a log of figures?")
    return rows


def _page(args: argparse.Namespace, path: Path, rows: History) -> Path:
    out = Path(args.out) if args.out else path.with_name(REPORT)
    if out.suffix in PICTURES:
        raise UsageError(f"--out {out}: one run makes a page, as .html")
    try:
        text = page(rows, args.title or path.resolve().parent.name)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    out.write_text(text, encoding="utf-8")
    for said in doctor(rows) or [too_short(rows) or WELL]:
        print(said)
    return out


def _beside(args: argparse.Namespace, paths: list[Path], histories: list[History]) -> Path:
    names = [path.resolve().parent.name if path.name == LOG else path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path.parent) if path.name == LOG else str(path) for path in paths]
    runs = dict(zip(names, histories, strict=True))
    out = Path(args.out or "runs.png")
    check_picture("--out", str(out))
    print(as_text(side_by_side.HEADER, side_by_side.rows(runs)))
    side_by_side.picture(runs).savefig(out, dpi=120)
    return out
