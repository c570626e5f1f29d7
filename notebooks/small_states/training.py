# SPDX-License-Identifier: Apache-2.0
"""Trains every workload with every format and landing, and appends each run to a CSV.

    python -m notebooks.small_states.training --workloads mlp,bigram --formats float32,bfloat16

Interrupt it and start it again: runs that the CSV has are not repeated. `protocol.py` says which
runs there are. A run uses one core: start two commands with files of their own on two cores.
"""

import argparse
import functools
import itertools
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import adamx
from notebooks.small_states import protocol, results
from notebooks.small_states.results import Entrant, Row
from notebooks.small_states.run import train
from notebooks.small_states.widths import WIDTHS
from notebooks.small_states.workloads import WORKLOADS, Workload

RESULTS = pathlib.Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the command line asks for and the CSV lacks."""
    args = _parser().parse_args(arguments)
    for name, *entrant in itertools.product(
        args.workloads, args.formats, args.landings, args.param_dtypes
    ):
        complete(args.out, WORKLOADS[name], Entrant(*entrant), args)


def complete(out: pathlib.Path, workload: Workload, entrant: Entrant, args: Any) -> None:
    """Runs what one entrant lacks on one workload."""
    while True:
        rows = results.read([out])
        if args.rates == "grid":
            runs = protocol.next_runs(
                workload, entrant, rows, args.tune_seeds, args.seeds, args.stages
            )
        else:
            done = {(r.workload, r.entrant, r.rate, r.seed) for r in rows}
            asked = itertools.product(map(float, args.rates.split(",")), range(args.seeds))
            runs = [run for run in asked if (workload.name, entrant, *run) not in done]
        if not runs:
            return
        for rate, seed in runs:
            began = time.monotonic()
            row = _row(workload, entrant, rate, seed)
            results.append(out, row)
            print(*row, f"{time.monotonic() - began:.1f} s", flush=True)


@functools.cache
def factory(entrant: Entrant) -> functools.partial:
    """AdamW with an entrant's storage and landing; the same object each time, as `train` needs."""
    landing = {} if entrant.landing == "nearest" else {"landing": entrant.landing}
    storage = WIDTHS.get(entrant.format, entrant.format)
    return functools.partial(adamx.adamw, storage=storage, **landing)


def _row(workload: Workload, entrant: Entrant, rate: float, seed: int) -> Row:
    losses = train(workload, factory(entrant), rate, seed, entrant.param_dtype)
    finite = all(map(math.isfinite, losses))
    diverged = not finite or losses.validation > losses.start
    return Row(workload.name, *entrant, rate, seed, *losses, diverged)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workloads", type=names, default=list(WORKLOADS), help=f"of {', '.join(WORKLOADS)}")
    add(
        "--formats",
        type=names,
        default=["float32"],
        help="names that `storage=` takes, or of `widths.py`",
    )
    add("--landings", type=names, default=["nearest"], help="names that `landing=` takes")
    add("--param-dtypes", type=names, default=["float32"], help="float32, bfloat16")
    add("--rates", default="grid", help="`grid` for the whole protocol, or learning rates")
    add("--stages", type=names, default=["final", "edge"], help="of final,edge, after the grid")
    add("--tune-seeds", type=int, default=2, help="seeds at each rate of the grid")
    add("--seeds", type=int, default=5, help="seeds at the best rate, or at each given rate")
    add("--out", type=pathlib.Path, default=RESULTS / "training.csv", help="the CSV to complete")
    return parser


def names(text: str) -> list[str]:
    """The type of a flag that takes names, separated by commas."""
    return text.split(",")


if __name__ == "__main__":
    main()
