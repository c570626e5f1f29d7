# SPDX-License-Identifier: Apache-2.0
"""Finds problems in the figures of a run, and says what to try. Each rule is a row in `RULES`."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from adamx.health.read import read

LATELY = 20  # the number of rows of a history that are recent

# Figures of one group of leaves, by name without the group; unknown ones are missing.
Figures = Mapping[str, float]


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


class Rule(NamedTuple):
    """One kind of problem.

    Attributes:
      holds: whether the figures of a group show the problem.
      what: the symptom in words, from the same figures.
      advice: what to try.
      of_tree: whether the rule applies to the whole tree only. A bias that starts at zero changes
        by more than its own size, which is normal.
    """

    holds: Callable[[Figures], bool]
    what: Callable[[Figures], str]
    advice: str
    of_tree: bool = False


def doctor(health: Any) -> list[Finding]:
    """The problems of a run, those of the whole tree first, then those of groups.

    Args:
      health: an optimizer's state, its figures (`health.read`), or a history of them
        (`health.history`); for a history, the medians of the last 20 rows are used.

    Example:
      >>> for finding in doctor({"lost": 0.02, "lost/decoder/*/bias": 0.42}):
      ...     print(finding)
      `decoder/*/bias`: 42% of updates are lost to rounding: land them by landing="stochastic", ...
    """
    groups: dict[str, dict[str, float]] = {}
    for name, value in _lately(health).items():
        figure, _, where = name.partition("/")
        groups.setdefault(where, {})[figure] = value
    found = []
    for where, figures in sorted(groups.items()):
        rules = [r for r in RULES if r.holds(figures) and not (where and r.of_tree)]
        if rules[:1] == [NO_GRADIENT]:  # it explains all the others
            rules = [NO_GRADIENT]
        found += [Finding(where, rule.what(figures), rule.advice) for rule in rules]
    return found


def _lately(health: Any) -> dict[str, float]:
    rows: Sequence[Mapping[str, Any]]
    if isinstance(health, Mapping):
        rows = [health]
    elif isinstance(health, Sequence) and health and isinstance(health[0], Mapping):
        rows = health[-LATELY:]
    else:
        rows = [read(health)]
    found = {}
    for name in {name for row in rows for name in row}:
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        values = [value for value in values if not math.isnan(value)]
        if values:
            found[name] = float(statistics.median(values))
    return found


def _above(name: str, least: float) -> Callable[[Figures], bool]:
    return lambda figures: figures.get(name, -math.inf) > least


def _share(name: str, of: str) -> Callable[[Figures], str]:
    return lambda figures: f"{figures[name]:.0%} of {of}"


NO_GRADIENT = Rule(
    lambda f: f.get("grad_norm", 1.0) == 0,
    lambda f: "no gradient arrives",
    "look for a layer that is cut off, a dead activation or a loss that does not depend on it",
)
RULES = (
    NO_GRADIENT,
    Rule(
        lambda f: f.get("param_norm", 1.0) == 0 and f.get("grad_norm", 0.0) > 0,
        lambda f: "all parameters are zero",
        "normal for a new bias; later the layer was overwritten: restore a checkpoint",
    ),
    Rule(
        _above("lost", 0.3),
        _share("lost", "updates are lost to rounding"),
        'land them by landing="stochastic", "compensated8" or "kahan", or keep float32 parameters',
    ),
    Rule(
        _above("under_epsilon", 0.1),
        lambda f: (
            f"epsilon dominates in {f['under_epsilon']:.0%} of elements"
            + (f", the gradient RMS is {f['grad_rms']:.0e}" if "grad_rms" in f else "")
        ),
        'use a smaller `eps` or eps_mode="atan2", or scale the loss up',
    ),
    Rule(
        _above("at_ceiling", 0.01),
        _share("at_ceiling", "second moments are at the largest value of their format"),
        'scale the loss down, clip, or use storage="bfloat16" for these leaves',
    ),
    Rule(
        _above("at_floor", 0.1),
        _share("at_floor", "second moments are at the smallest value of their format"),
        'scale the loss up, or use storage="bfloat16" for these leaves',
    ),
    Rule(
        _above("update_ratio", 0.03),
        lambda f: f"a step changes the parameters by {f['update_ratio']:.1%}",
        "lower the learning rate, or warm it up for longer",
        of_tree=True,
    ),
    Rule(
        lambda f: 0 < f.get("update_ratio", 1.0) < 1e-6,
        lambda f: f"a step changes the parameters by only {f['update_ratio']:.0e}",
        "raise the learning rate, unless this is the end of its schedule",
    ),
    Rule(
        _above("grad_drift", 1.0),
        lambda f: f"gradients are {1 + f['grad_drift']:.1f} times as large as before",
        "lower the learning rate, clip by global norm, or look at the recent data",
    ),
    Rule(
        lambda f: f.get("noise_scale", 0.0) == math.inf or f.get("noise_scale", 0.0) > 1e4,
        lambda f: "gradients are nearly all noise",
        "at this rate there is little left to learn: lower it, or take larger batches",
        of_tree=True,
    ),
    Rule(
        _above("idle", 1e-3),
        lambda f: f"{f['idle']:.2%} of elements have had no gradient for long",
        "look for dead units and for rows that the data never asks for; less decay, or none there",
    ),
    Rule(
        _above("clip_rate", 0.5),
        _share("clip_rate", "steps are clipped"),
        "raise the bound: a clip at every step just lowers the learning rate",
    ),
    Rule(
        _above("spikes_in_a_row", 3),
        lambda f: f"the last {f['spikes_in_a_row']:.0f} steps were skipped as spikes",
        "`health.first_bad(state, params)` names the leaf; look at the recent data, or go back",
    ),
    Rule(
        lambda f: f.get("loss_scale", 1.0) < 1,
        lambda f: f"gradients overflow unless the loss is scaled by {f['loss_scale']:.0e}",
        "train in bfloat16, or find the layer with the largest gradients",
    ),
    Rule(
        _above("skipped_in_a_row", 0),
        lambda f: f"the last {f['skipped_in_a_row']:.0f} steps were not finite and were skipped",
        "`health.first_bad(state, params)` names the leaf; lower the learning rate or go back",
    ),
)
