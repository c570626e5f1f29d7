# SPDX-License-Identifier: Apache-2.0
"""Names the leaf that a guard has counted: in a group or behind a mask, one of those it sees."""

from collections.abc import Iterator, Sequence
from typing import Any

import optax

from adamx.core import paths
from adamx.core.instances import instances, is_hole
from adamx.core.state_paths import owned
from adamx.health.scalars import first
from adamx.health.states import KINDS, LossScaleState, SkipState


def first_bad(state: Any, params: optax.Params) -> str | None:
    """The name of the leaf that caused a guard's last skip; None before the first.

    Of several guards it is the outermost that skipped the last step, else the outermost that ever
    skipped one.

    Args:
      state: the optimizer's state, or that of a guard.
      params: the parameters.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> params = {"kernel": jnp.ones(2)}
      >>> print(first_bad(health.skip_nonfinite(adamx.adam(0.1)).init(params), params))
      None
    """
    found = [
        (_skips(guard), leaf_name(number, names))
        for guard, names in seen_by_guards(state, params)
        if isinstance(guard, SkipState | LossScaleState)
        and (number := int(first(guard.first_bad))) >= 0
    ]
    found.sort(key=lambda row: not row[0])
    return found[0][1] if found else None


def seen_by_guards(state: Any, params: Any) -> Iterator[tuple[Any, Sequence[str] | None]]:
    """Each guard and observer in a state, outermost first, and the names of the leaves it sees.

    Behind a mask these are the leaves of which its state keeps something; None if it keeps nothing.
    """
    for guard, is_masked in _guards(state, False):
        names = None if params is None else paths.names(params)
        if names is not None and is_masked:
            kept = {x.name for x in owned(guard.inner, params)}
            names = [name for name in names if name in kept] or None
        yield guard, names


def leaf_name(number: int, names: Sequence[str] | None) -> str:
    """The name of a leaf by its number; the number after the last leaf's stands for the state."""
    if names is None or not 0 <= number <= len(names):
        return f"leaf {number}"
    return [*names, "the optimizer's state"][number]


def _guards(state: Any, is_masked: bool) -> Iterator[tuple[Any, bool]]:
    for node in instances(state, *KINDS, optax.MaskedState):
        if isinstance(node, optax.MaskedState):
            yield from _guards(node.inner_state, True)
        else:
            yield node, is_masked or _has_holes(node.inner)
            yield from _guards(node.inner, is_masked)


def _has_holes(state: Any) -> bool:
    """Whether a mask hides leaves from a state itself, and not only from a part of it."""
    found = instances(state, optax.MaskedNode, optax.MaskedState)
    return any(map(is_hole, found))


def _skips(guard: SkipState | LossScaleState) -> bool:
    if isinstance(guard, SkipState):
        return bool(first(guard.in_a_row) > 0)
    return bool(first(guard.good) == 0)
