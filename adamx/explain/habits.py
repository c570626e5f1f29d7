# SPDX-License-Identifier: Apache-2.0
"""What an optimizer is seen to do: its decay, its epsilon, its first steps, its momentum.

All is told from updates at constant parameters. Sizes of steps are in learning rates.
"""

import math
from typing import NamedTuple

import numpy as np

from adamx.explain.probes import LONG, Steps


class Habits(NamedTuple):
    """What is seen of an optimizer.

    Attributes:
      uphill: whether it climbs.
      plain: for how many first steps a step grows with the gradient; `LONG` for always.
      first: the first step at gradients of 1.
      settled: the last of `LONG` steps at gradients of 1.
      flipped: the step at a gradient of -1 after one of 1; negative if it turns back.
      after_outlier: the fifth step at a gradient of 10 and then gradients of 1.
      decay: the kind of decay: "none", "decoupled" or "in the gradient".
      pull: what a decoupled decay takes off a parameter of 1 in one step, not in learning rates.
      trust: whether steps grow with the parameter.
      eps_place: where epsilon is added: "none", "the corrected root", "the uncorrected root",
        "inside the root" or "elsewhere".
      eps_first, eps_last: what is added to the corrected root in effect, at the first step that is
        not plain and at the last.
      small_first, small_last: these steps at gradients of 1e-8.
    """

    uphill: bool
    plain: int
    first: float
    settled: float
    flipped: float
    after_outlier: float
    decay: str
    pull: float
    trust: bool
    eps_place: str
    eps_first: float
    eps_last: float
    small_first: float
    small_last: float


def habits(seen: Steps, rate: float, b2: float | None) -> Habits:
    """What updates at constant parameters say. Where b2 is known, it tells epsilon-hat."""
    grows = np.abs(seen.huge) > 10 * np.abs(seen.large)
    plain = LONG if grows[-1] else int(np.argmin(grows))
    decay, pull = _decay(seen)
    place, first, last = _epsilon(seen, plain, b2)
    ahead = math.copysign(rate, float(seen.large[0]))
    return Habits(
        uphill=bool(seen.large[-1] * math.copysign(1, rate) > 0),
        plain=plain,
        first=abs(float(seen.large[0]) / rate),
        settled=abs(float(seen.large[-1]) / rate),
        flipped=float(seen.flipped[1]) / ahead,
        after_outlier=abs(float(seen.outlier[4]) / rate),
        decay=decay,
        pull=pull,
        trust=_trust(seen, pull),
        eps_place=place,
        eps_first=first,
        eps_last=last,
        small_first=abs(float(seen.small[0]) / rate),
        small_last=abs(float(seen.small[-1]) / rate),
    )


def _decay(seen: Steps) -> tuple[str, float]:
    one = abs(float(seen.at_rest[0] - seen.still[0]))
    two = abs(float(seen.at_rest_twice[0] - seen.still[0]))
    if one == 0:
        return "none", 0.0
    if abs(two - 2 * one) < 1e-6 * two:
        return "decoupled", one
    return "in the gradient", 0.0


def _trust(seen: Steps, pull: float) -> bool:
    """Whether the step, without a decoupled decay, is twice as large at twice the parameter."""
    one, two = abs(float(seen.at_one[0])) - pull, abs(float(seen.at_two[0])) - 2 * pull
    return abs(two - 2 * one) < 1e-3 * abs(two)


def _epsilon(seen: Steps, plain: int, b2: float | None) -> tuple[str, float, float]:
    """Epsilon's place, and what it is in effect: e in g / (g + e)."""
    if plain == LONG:
        return "none", 0.0, 0.0
    first, last = _effective(seen.small, seen, plain, 1e-8), _effective(seen.small, seen, -1, 1e-8)
    if max(abs(first), abs(last)) < 1e-16:  # 1e-8 of a gradient of 1e-8
        return "none", 0.0, 0.0
    if _effective(seen.usual, seen, -1, 1e-4) < 0.5 * last:  # sqrt(g^2 + e^2) - g falls with g
        return "inside the root", first, last
    if abs(first - last) < 1e-3 * last:
        return "the corrected root", first, last
    if b2 is not None and b2 < 1:
        hat = math.sqrt((1 - b2**LONG) / (1 - b2 ** (plain + 1)))
        if abs(first / last - hat) < 1e-3 * hat:
            return "the uncorrected root", first, last
    return "elsewhere", first, last


def _effective(steps: np.ndarray, seen: Steps, at: int, size: float) -> float:
    step = float(steps[at])
    return size * (float(seen.huge[at]) / step - 1) if step else math.inf
