# SPDX-License-Identifier: Apache-2.0
"""A landing that starts in the middle of a run: its part of the state, which others lack."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.instances import instances
from adamx.landing.transform import LandingState
from adamx.moments.find import is_moments


def starts(source: Any, target: Any) -> bool:
    """Whether a state like `target` has the parts of landings, and one like `source` none."""
    return bool(instances(target, LandingState)) and not instances(source, LandingState)


def without(target: Any) -> Any:
    """A template of a state, without the parts of its landings."""
    return jax.tree.map(lambda x: _rest(x) if _ends(x) else x, target, is_leaf=_stops)


def started(state: Any, target: Any) -> Any:
    """A state like `without(target)`, with the parts of landings that have taken no step."""
    goals, treedef = jax.tree.flatten(target, is_leaf=_stops)
    parts = treedef.flatten_up_to(state)
    return treedef.unflatten(
        [_ended(x, goal) if _ends(goal) else x for x, goal in zip(parts, goals, strict=True)]
    )


def _ended(state: Any, goal: tuple[Any, ...]) -> tuple[Any, ...]:
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), goal[-1])
    return (state, blank) if len(goal) == 2 else (*state, blank)


def _rest(x: tuple[Any, ...]) -> Any:
    return x[0] if len(x) == 2 else x[:-1]  # `chain(opt, landing)` around a whole optimizer


def _ends(x: Any) -> bool:
    """Whether a node is the state of a chain that ends with a landing."""
    return type(x) is tuple and len(x) > 1 and isinstance(x[-1], LandingState)


def _stops(x: Any) -> bool:
    return _ends(x) or is_moments(x)
