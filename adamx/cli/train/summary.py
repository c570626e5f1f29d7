# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a training: the scores of each runner, and their cost."""

from collections.abc import Mapping
from typing import Any

from adamx.cli.tasks import Task
from adamx.cli.train.race import Runner, largest_difference
from adamx.core.tables import as_text


def reached(task: Task, runners: Mapping[str, Runner]) -> str:
    """Scores, time per step and bytes of state; for two runners also how far they are apart."""
    scores = {name: task.scores(runner.evaluated) for name, runner in runners.items()}
    everyone = list(runners.values())
    rows = [
        [_called(which), *(_cell(which, score[which]) for score in scores.values())]
        for which in next(iter(scores.values()))
    ]
    rows += [[name, said, *[""] * (len(runners) - 1)] for name, said in task.beside]
    rows += [
        ["ms per step", *(f"{runner.milliseconds:.3f}" for runner in everyone)],
        ["bytes of state per device", *(f"{runner.state_bytes:,}" for runner in everyone)],
    ]
    if len(runners) > 1:
        ours, theirs = everyone
        apart = largest_difference(ours.params, theirs.params)
        rows.append(["largest |difference of parameters|", f"{apart:.1e}", ""])
    return as_text(["", *runners], rows)


def _called(which: str) -> str:
    return "final loss" if which == "loss" else which


def _cell(which: str, value: Any) -> str:
    return f"{float(value):.2%}" if which.endswith("accuracy") else f"{float(value):.4g}"
