# SPDX-License-Identifier: Apache-2.0
"""One report of what the library does on a GPU: its tests, its speed, and a training run.

    python -m tests.on_gpu [--seconds 440] [--quick]

It needs one device, no network, and what the tests need. Each part is a process of its own with a
time limit, so that none of them ends the report. The report goes to standard output, and into
`$OUT/report.md` where `OUT` is set. `--quick` tries all of it at tiny sizes, on a CPU too.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Part(NamedTuple):
    """A part of the report: its title, its module, and its share of the time that is left."""

    title: str
    module: str
    share: float


PARTS = (
    Part("Machine", "device", 0.2),
    Part("Speed of a step", "steps", 0.4),
    Part("Training", "training", 0.45),
    Part("Tests", "suite", 0.95),
)
KILLED_AFTER = 10.0  # seconds beyond a part's own limit


def main() -> None:
    """Runs every part and prints the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=440, help="for all of it (default: 440)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    args = parser.parse_args()
    end, report = time.monotonic() + args.seconds, ["# On one device"]
    for part in PARTS:
        limit = part.share * (end - time.monotonic())
        print(f"{part.title}: at most {limit:.0f} s ...", file=sys.stderr, flush=True)
        report.append(f"## {part.title}\n\n{ran(part, limit, args.quick)}")
        _save("report.md", "\n\n".join(report) + "\n")
    print("\n\n".join(report))


def ran(part: Part, limit: float, quick: bool) -> str:
    """What a part prints, and in a line why it failed or was ended."""
    if limit < 5:
        return "Left out: no time was left."
    command = [sys.executable, "-m", f"tests.on_gpu.{part.module}", f"--seconds={limit:.0f}"]
    command += ["--quick"] * quick
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its children end with it
    )
    try:
        out, err = process.communicate(timeout=limit + KILLED_AFTER)
        why = f"Failed with exit code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        why = f"Ended after {limit + KILLED_AFTER:.0f} s"
    _save(f"{part.module}.log", err)
    if why:
        last = (err.strip().splitlines() or ["nothing was said"])[-1]
        out += f"\n{why}: {last}\n"
    return f"{out.strip()}\n\n({time.monotonic() - begun:.0f} s)"


def _save(name: str, text: str) -> None:
    """Writes a file into `$OUT`, if there is one."""
    folder = os.environ.get("OUT")
    if folder:
        Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
