# SPDX-License-Identifier: Apache-2.0
"""Finds problems in the figures of a run, and says what to try."""

from typing import Any, NamedTuple

from adamx.health.report.evidence import ENOUGH, Evidence, gathered, rows_of
from adamx.health.report.not_finite import LOSSES, NORMS, broken
from adamx.health.report.rules import IDLE, LONG_STEPS, NO_GRADIENT, NO_STEPS, RULES, Rule

WELL = "Nothing that the doctor knows of is wrong."
RESCUE = (
    "restore a checkpoint from before; lower the learning rate or warm it up, and wrap the "
    "optimizer in `health.skip_nonfinite`, which names the leaf"
)


LONG = 0.1  # of the parameters, by one of the first steps of a run in which units die
OF_NO_STEPS = {"lost updates", "all zero", "short steps"}


class Finding(NamedTuple):
    """One problem.

    Attributes:
      where: the pattern or the path of the leaves; empty for the whole tree.
      what: the symptom.
      advice: what to try.
    """

    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{f'`{self.where}`: ' if self.where else ''}{self.what}: {self.advice}"


def doctor(health: Any) -> list[Finding]:
    """The problems of a run: NaN and infinities, then those of the whole tree, then of groups.

    A history is judged by the medians of its last 20 observations and not by fewer than 5. One
    state is judged by its last observation, after 20 steps. Whether a run is finite, every row
    tells.

    Args:
      health: an optimizer's state, its figures (`health.read`), or a history of them
        (`health.history`).

    Raises:
      ValueError: if there are no figures, as in the state of an optimizer without `observe`.

    Example:
      >>> for finding in doctor({"lost": 0.02, "lost/decoder/*/bias": 0.42}):
      ...     print(finding)
      `decoder/*/bias`: 42% of updates are lost to rounding: land them by landing="stochastic", ...
      >>> print(doctor([{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])[0].what)
      not finite since step 2, first in loss
    """
    rows, enough = rows_of(health)
    found = []
    if end := broken(rows):
        found.append(Finding("", str(end), RESCUE))
        rows = end.before
    groups = gathered(rows, enough)
    ill = {where: _ills(seen, where) for where, seen in groups.items()}
    if any(where and {NO_GRADIENT, IDLE} & set(rules) for where, rules in ill.items()):
        ill[""] = [rule for rule in ill.get("", []) if rule is not IDLE]  # the leaf says it
        first = groups[""].early("update_ratio") if "" in groups else 0.0
        if first > LONG and LONG_STEPS not in ill[""]:  # it kills units, and ends with them
            said = f"one of the first steps changed the parameters by {first:.1%}"
            found.append(Finding("", said, LONG_STEPS.advice))
    if NO_STEPS in ill.get("", []):  # it explains these
        ill = {k: [rule for rule in v if rule.name not in OF_NO_STEPS] for k, v in ill.items()}
    for where, rules in ill.items():
        found += [Finding(where, rule.what(groups[where]), rule.advice) for rule in rules]
    return found


def _ills(seen: Evidence, where: str) -> list[Rule]:
    rules = [r for r in RULES if r.holds(seen) and not (where and r.of_tree)]
    return [NO_GRADIENT] if NO_GRADIENT in rules else rules  # it explains all the others


def too_short(health: Any) -> str:
    """Why a history without findings says little; empty if it has enough observations."""
    rows, enough = rows_of(health)
    looks = max((sum(n in row for row in rows) for n in (*NORMS, *LOSSES)), default=0)
    if enough < ENOUGH or looks >= ENOUGH:
        return ""
    return f"Too short to judge: {looks} of the {ENOUGH} observations that it takes."
