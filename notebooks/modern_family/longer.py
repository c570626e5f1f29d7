# SPDX-License-Identifier: Apache-2.0
"""Whether what the short runs found lasts: the text again, four times as long.

    python -m notebooks.modern_family.longer --entrants adamw,soap

Each entrant at its best decay, at its best rate and at half of it, on two seeds. What is better
at the end of 400 steps may only have been faster at first.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence

from notebooks.modern_family import protocol, results
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS
from notebooks.modern_family.results import Row
from notebooks.modern_family.run import train
from notebooks.modern_family.training import RESULTS

TIMES, SEEDS = 4, (10, 11)
LONGER = ("adamw", "nadamw", "grams", "schedule_free", "muon + adamw", "soap")
NAME = "text, longer"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what the CSV lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entrants", type=lambda text: text.split(","), default=LONGER)
    parser.add_argument("--short", type=pathlib.Path, default=RESULTS / "runs.csv")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "longer.csv")
    args = parser.parse_args(arguments)
    short = results.read(args.short)
    done = {(row.entrant, row.rate, row.seed) for row in results.read(args.out)}
    workload = WORKLOADS["text"]
    workload = dataclasses.replace(workload, steps=TIMES * workload.steps)
    for name in args.entrants:
        mine = [row for row in short if (row.workload, row.entrant) == ("text", name)]
        rate, decay = protocol.best(mine)
        for at, seed in itertools.product((rate, protocol.rounded(rate / 2)), SEEDS):
            if (name, at, seed) not in done:
                ended = train(workload, ENTRANTS[name], at, decay, seed)
                loss = ended.validation if ended.validation <= ended.start else math.nan
                results.append(args.out, Row(NAME, name, at, decay, seed, loss, ended.train))


def best(rows: Sequence[Row], entrant: str) -> list[float]:
    """The losses at the better of the two rates, one per seed in their order."""
    mine = [row for row in rows if row.entrant == entrant]
    at = {rate: [r.loss for r in mine if r.rate == rate] for rate in {r.rate for r in mine}}
    return min(at.values(), key=lambda losses: _total(losses))


def _total(losses: Sequence[float]) -> float:
    total = sum(losses)
    return math.inf if math.isnan(total) else total


if __name__ == "__main__":
    main()
