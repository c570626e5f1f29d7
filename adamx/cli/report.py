# SPDX-License-Identifier: Apache-2.0
"""Make a page of the figures of a run, and say what is wrong with it.

Takes a file of JSON lines, as `train` and `health.JsonLines` write them, or the folder of a run.
"""

import argparse
from pathlib import Path

from adamx.cli.arguments import UsageError, optional_import
from adamx.health import doctor, history
from adamx.health.page import page

LOG = "run.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `report`."""
    add = parser.add_argument
    add("log", metavar="FILE", help=f"a file of JSON lines, or a folder with {LOG} in it")
    add("--out", metavar="FILE", help="where the page goes (default: report.html beside the file)")
    add("--title", metavar="TEXT", help="of the page (default: the folder's name)")


def run(args: argparse.Namespace) -> int:
    """Writes the page, prints what the doctor finds."""
    optional_import("matplotlib", "matplotlib")
    path = Path(args.log)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    rows = [row for row in history(path) if "step" in row]
    if not rows:
        raise UsageError(f"{path}: no line has a step; is this a log of figures?")
    out = Path(args.out) if args.out else path.with_name("report.html")
    try:
        text = page(rows, args.title or path.resolve().parent.name)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    out.write_text(text, encoding="utf-8")
    findings = doctor(rows)
    for finding in findings:
        print(finding)
    if not findings:
        print("Nothing that the doctor knows of is wrong.")
    print(f"\nwritten: {out}")
    return 0
