# SPDX-License-Identifier: Apache-2.0
"""Trains every entrant on every workload, and appends each run to a CSV.

    python -m notebooks.modern_family.training --workloads digits --entrants adamw,soap

Interrupt it and start it again: runs that the CSV has are not repeated. `protocol.py` says which
runs there are. A run uses one core: start two commands with files of their own on two cores.
"""

import argparse
import math
import pathlib
import time
from collections.abc import Sequence

from notebooks.modern_family import protocol, results
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS
from notebooks.modern_family.results import Row
from notebooks.modern_family.run import train

RESULTS = pathlib.Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line asks for and the CSV lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, known in {"workloads": WORKLOADS, "entrants": ENTRANTS}.items():
        parser.add_argument(
            f"--{name}", type=_names, default=list(known), help=f"of {', '.join(known)}"
        )
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "runs.csv")
    args = parser.parse_args(arguments)
    for workload in args.workloads:
        for entrant in args.entrants:
            complete(args.out, workload, entrant)


def complete(out: pathlib.Path, workload: str, entrant: str) -> None:
    """Runs what one entrant lacks on one workload."""
    middle = ENTRANTS[entrant].middle[workload]
    while True:
        rows = [r for r in results.read(out) if (r.workload, r.entrant) == (workload, entrant)]
        runs = protocol.next_runs(workload, middle, rows)
        if not runs:
            return
        for rate, decay, seed in runs:
            began = time.monotonic()
            row = _row(workload, entrant, rate, decay, seed)
            results.append(out, row)
            print(*row, f"{time.monotonic() - began:.1f} s", flush=True)


def _row(workload: str, entrant: str, rate: float, decay: float, seed: int) -> Row:
    ended = train(WORKLOADS[workload], ENTRANTS[entrant], rate, decay, seed)
    finite = all(map(math.isfinite, ended)) and ended.validation <= ended.start
    loss = ended.validation if finite else math.nan
    return Row(workload, entrant, rate, decay, seed, loss, ended.train)


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
