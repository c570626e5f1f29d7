# SPDX-License-Identifier: Apache-2.0
"""How often each rule of the doctor finds its problem, and how often it finds one where none is.

`python -m tests.health.doctor_table` prints a table; it takes some five minutes on two cores.
"""

import sys
import tempfile
from pathlib import Path

from adamx import health
from adamx.core.tables import as_markdown
from adamx.health.report.doctor import RESCUE
from adamx.health.report.rules import RULES
from tests.health import healthy, patients

NAMES = {RESCUE: "not finite"} | {rule.advice: rule.name for rule in RULES}


def found(history: list[dict[str, float]]) -> set[str]:
    """The names of the rules that find something in a history."""
    return {NAMES[finding.advice] for finding in health.doctor(history)}


def detected(rule: str, seeds: int = patients.SEEDS) -> int:
    """In how many of the runs with its problem a rule finds it."""
    setup = patients.PROBLEMS[rule][0]
    runs = [patients.knobs(rule, seed) for seed in range(seeds)]
    return sum(rule in found(history) for history in patients.histories(setup, runs))


def false_alarms(folder: Path) -> dict[str, set[str]]:
    """What is found in each healthy run."""
    alarms = {}
    for name, history in healthy.runs(folder):
        alarms[name] = found(history)
        print(name, len(history), alarms[name] or "", file=sys.stderr, flush=True)
    return alarms


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        alarms = false_alarms(Path(folder))
    rows = [
        [rule, f"{detected(rule)} of {patients.SEEDS}", f"{_count(rule, alarms)} of {len(alarms)}"]
        for rule in patients.PROBLEMS
    ]
    print(as_markdown(["rule", "found where it is", "found in healthy runs"], rows))


def _count(rule: str, alarms: dict[str, set[str]]) -> int:
    return sum(rule in names for names in alarms.values())


if __name__ == "__main__":
    main()
