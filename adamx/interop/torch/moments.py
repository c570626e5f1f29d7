# SPDX-License-Identifier: Apache-2.0
"""The moments that torch keeps of each parameter, as moments of our leaves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adamx.interop.names import Problems
from adamx.interop.states import Moments
from adamx.interop.torch import tensors
from adamx.interop.torch.arguments import number
from adamx.interop.torch.checked import of_step
from adamx.interop.torch.groups import Group
from adamx.interop.torch.matching import Match
from adamx.interop.torch.optimizer import FROZEN


def moments_of(
    groups: Sequence[Group],
    matches: Sequence[Match],
    theirs: Mapping[str, tuple[int, ...]],
    problems: Problems,
) -> tuple[dict[str, str], dict[str, Moments]]:
    """The label of each leaf's group, and the moments of each leaf that is trained.

    Leaves of parameters that never had a gradient are labelled as frozen, and have no moments.
    """
    every = [(name, group) for group in groups for name in group.names]
    of = {name: group for name, group in every if name not in group.resting}
    if every and not of and not problems:
        problems.add(
            "the optimizer has no moments yet: move the weights alone, and call `opt.init`"
        )
    for name, group in of.items():
        if name in theirs:
            _check(name, group, theirs[name], problems)
    _check_counts(groups, problems)
    if problems:
        return {}, {}
    labels: dict[str, str] = {}
    found: dict[str, Moments] = {}
    for m in matches:
        here = [of.get(name) for name in m.sources]
        label = {FROZEN if group is None else group.label for group in here}
        if len(label) > 1:
            problems.add(f"{m.path}: its parts are in different groups: {', '.join(sorted(label))}")
            continue
        labels[m.path] = label.pop()
        if (group := here[0]) is not None:
            found[m.path] = _moments(m, group)
    return labels, found


def fresh(
    groups: Sequence[Group], matches: Sequence[Match], theirs: Mapping[str, tuple[int, ...]]
) -> dict[str, Moments]:
    """Moments of no steps for the leaves of parameters that never had a gradient."""
    of = {name: group for group in groups for name in group.resting}
    found: dict[str, Moments] = {}
    for m in (m for m in matches if m.sources[0] in of):
        group = of[m.sources[0]]
        zero = m.move(*(np.zeros(theirs[name], np.float32) for name in m.sources))
        found[m.path] = Moments(group.kinds, 0, dict.fromkeys(group.moments, zero), {})
    return found


def _moments(m: Match, group: Group) -> Moments:
    held = [group.states[name] for name in m.sources]
    arrays = {
        ours: m.move(*(tensors.to_numpy(state[there]) for state in held))
        for ours, there in group.moments.items()
    }
    return Moments(group.kinds, _steps(held[0]), arrays, {})


def _steps(state: Mapping[str, Any]) -> int:
    return round(float(number(state["step"])))


def _check(name: str, group: Group, shape: tuple[int, ...], problems: Problems) -> None:
    state = group.states.get(name, {})
    wanted = group.moments
    if missing := [key for key in ("step", *wanted.values()) if key not in state]:
        problems.add(f"{name}: the optimizer's state lacks {', '.join(missing)} ({group.kind})")
        return
    for ours, key in wanted.items():
        if wrong := tensors.complaint(state[key]):
            problems.add(f"{name}: {key} {wrong}")
        elif (got := tensors.shape_of(state[key])) != shape:
            problems.add(f"{name}: {key} has shape {got}, the weight has {shape}")
        elif group.kinds[ours] != "signed" and not np.all(tensors.to_numpy(state[key]) >= 0):
            problems.add(f"{name}: {key} must be 0 or more, but has negative values or NaN")
    if wrong := of_step(state["step"]):
        problems.add(f"{name}: {wrong}")
    elif "mu_product" in state and group.kind == "nadam":
        _check_product(name, state, group, problems)


def _check_product(name: str, state: Mapping, group: Group, problems: Problems) -> None:
    """torch keeps the product of NAdam's betas, which here follows from the number of steps."""
    got, steps = float(number(state["mu_product"])), _steps(state)
    want = product(group.arguments, steps)
    if abs(got - want) > 1e-3 * max(abs(want), 1e-30):
        problems.add(
            f"{name}: mu_product is {got:.6g}, after {steps} steps with the group's betas and "
            f"momentum_decay it is {want:.6g}: these changed on the way, which has no form here"
        )


def product(arguments: Mapping[str, Any], steps: int) -> float:
    """The product of NAdam's first betas after so many steps."""
    b1 = arguments.get("betas", (0.9, 0.999))[0]
    psi = arguments.get("momentum_decay", 4e-3)
    if b1 == 0:
        return 0.0 if steps else 1.0
    factors = (1 - 0.5 * 0.96 ** (t * psi) for t in range(1, steps + 1))
    return math.exp(steps * math.log(b1) + math.fsum(map(math.log, factors)))


def _check_counts(groups: Sequence[Group], problems: Problems) -> None:
    for group in groups:
        counts: dict[int, list[str]] = {}
        for name, state in group.states.items():
            if "step" in state and not of_step(state["step"]):
                counts.setdefault(_steps(state), []).append(name)
        if len(counts) > 1:
            said = "; ".join(f"{n} for {', '.join(names)}" for n, names in sorted(counts.items()))
            problems.add(
                f"{group.label}: the numbers of steps differ: {said}: torch counts for each "
                "parameter, here a group counts: split it in `optimizer['param_groups']` by these "
                "numbers, and give `order`"
            )
