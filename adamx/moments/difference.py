# SPDX-License-Identifier: Apache-2.0
"""In which of their parts two states differ, for error messages."""

import itertools
from typing import Any

import jax

from adamx.moments.described import Described
from adamx.moments.find import is_moments


def difference(one: Any, other: Any) -> str:
    """The parts of two states, or their structures where the parts are the same."""
    parts, others = (", ".join(_parts(x)) or "nothing" for x in (one, other))
    if parts != others:
        return f"{parts} instead of {others}"
    found, expected = (jax.tree.structure(x, is_leaf=is_moments) for x in (one, other))
    return f"{found} instead of {expected}"


def _parts(state: Any) -> list[str]:
    """The classes of a state's parts, outside in; those in a row with their number."""

    def is_part(x: Any) -> bool:
        return is_moments(x) or hasattr(x, "_fields")

    found: list[str] = []
    for x in filter(is_part, jax.tree.leaves(state, is_leaf=is_part)):
        found.append(_class(x))
        found += [] if is_moments(x) else _parts(tuple(x))
    rows = [(name, len([*row])) for name, row in itertools.groupby(found)]
    return [name if number == 1 else f"{number} {name}" for name, number in rows]


def _class(x: Any) -> str:
    return type(x.state if isinstance(x, Described) else x).__name__
