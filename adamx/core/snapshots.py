# SPDX-License-Identifier: Apache-2.0
"""Parameters kept in an optimizer's state, to which a step may go back."""

from typing import Any, NamedTuple

import jax
import optax
from jax import lax

from adamx.core.host_memory import on_device
from adamx.core.instances import instances, is_hole


class Snapshot(NamedTuple):
    """What a run was at some step.

    Attributes:
      params: its parameters.
      state: the state of the optimizer that keeps the snapshot.
      due: whether the last step went back to it.
    """

    params: Any
    state: Any
    due: jax.Array


def put_back(params: optax.Params, state: optax.OptState) -> optax.Params:
    """`params` after a step, or bit for bit those of a snapshot in the state that it went back to.

    Sums with an update, as `optax.apply_updates` makes them, end within rounding of it, and never
    get rid of a NaN.
    """
    for kept in instances(state, Snapshot):
        held = _over(kept.params, params)
        params = lax.cond(kept.due, lambda held=held: on_device(held), lambda p=params: p)
    return params


def _over(kept: Any, params: Any) -> Any:
    """`params` with those of a snapshot, which lacks what a mask or other groups hid from it."""

    def one(held: Any, now: Any) -> Any:
        return now if is_hole(held) else held

    try:
        found = jax.tree.map(one, kept, params, is_leaf=is_hole)
        fits = jax.tree.structure(found) == jax.tree.structure(params)
    except ValueError:
        found, fits = params, False
    if not fits:
        raise ValueError(
            "the parameters that a snapshot keeps are not those of the step: put `health.rewind` "
            "around what changes their tree, such as `optax.flatten`"
        )
    return found
