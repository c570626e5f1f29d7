# SPDX-License-Identifier: Apache-2.0
"""Trained arrays of torch that several leaves share, and those of which leaves take a part only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adamx.interop.layouts import positions
from adamx.interop.names import Problems
from adamx.interop.torch import tensors
from adamx.interop.torch.groups import Group
from adamx.interop.torch.matching import Match
from adamx.interop.torch.order import memory_of


def check_tied(
    matches: Sequence[Match],
    groups: Sequence[Group],
    weights: Mapping[str, Any],
    problems: Problems,
) -> None:
    """A problem for each leaf that is tied in torch to a weight that the optimizer trains."""
    trained = {name for group in groups for name in group.names if name in weights}
    for m in matches:
        for name in (name for name in m.sources if name not in trained):
            other = next((x for x in trained if _are_one(weights[name], weights[x])), None)
            if other is not None:
                problems.add(
                    f"{m.path}: {name} is tied to {other} in torch, two leaves here are not: use "
                    f"one leaf for both, or untie them with `names={{{m.path!r}: {other!r}}}`, "
                    "after which each has the moments and goes its own way"
                )


def _are_one(a: Any, b: Any) -> bool:
    """Whether two entries are one weight: in one memory, or tables of the same values."""
    if memory_of(a) is not None and memory_of(a) == memory_of(b):
        return True
    if tensors.shape_of(a) != tensors.shape_of(b) or len(tensors.shape_of(a)) < 2:
        return False
    if tensors.complaint(a) or tensors.complaint(b):
        return False
    x, y = tensors.to_numpy(a), tensors.to_numpy(b)
    return x.size > 1 and bool(np.any(x != x.flat[0])) and np.array_equal(x, y)


def check_parts(
    matches: Sequence[Match], groups: Sequence[Group], theirs: Mapping[str, Any], problems: Problems
) -> None:
    """A problem for each trained array of which some elements are in no leaf."""
    trained = {name for group in groups for name in group.names}
    partial = [m for m in matches if "third" in m.kind or m.kind.startswith("function")]
    for name in dict.fromkeys(name for m in partial for name in m.sources if name in trained):
        size = math.prod(theirs[name])
        taken = np.zeros(size, bool)
        for m in (m for m in matches if name in m.sources):
            shapes = [theirs[source] for source in m.sources]
            start = sum(math.prod(shape) for shape in shapes[: m.sources.index(name)])
            where = positions(m.move, shapes).ravel() - start
            taken[where[(where >= 0) & (where < size)]] = True
        if not taken.all():
            problems.add(
                f"{name}: torch trains it, {size - int(taken.sum()):,} of its {size:,} elements "
                "are in no leaf here: map all of its parts"
            )
