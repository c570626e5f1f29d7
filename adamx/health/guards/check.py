# SPDX-License-Identifier: Apache-2.0
"""Raises an error that names the leaf when a guard has reached its limit."""

from collections.abc import Sequence

import optax

from adamx.health.guards.leaf_names import leaf_name, seen_by_guards
from adamx.health.guards.loss_scale import LEAST
from adamx.health.scalars import first
from adamx.health.states import LossScaleState, RewindState, SkipState

Names = Sequence[str] | None


class TooManySkippedError(RuntimeError):
    """A guard has skipped more steps in a row, or gone back more often, than its limit allows."""


def check(state: optax.OptState, params: optax.Params | None = None) -> None:
    """Raises if a guard in the state has reached its limit.

    Call it now and then on the host; it blocks until the step that made the state is done.

    Args:
      state: an optimizer's state.
      params: the parameters, to name the bad leaf.

    Raises:
      TooManySkippedError: a `RuntimeError`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> params = {"kernel": jnp.ones(2)}
      >>> check(adamx.health.skip_nonfinite(adamx.adam(0.1)).init(params), params)
    """
    complaints = {SkipState: _skipped, LossScaleState: _overflowed, RewindState: _stuck}
    for guard, names in seen_by_guards(state, params):
        complain = complaints.get(type(guard))  # None for observers and counters
        if complain and (said := complain(guard, names)):
            raise TooManySkippedError(said)


def _skipped(guard: SkipState, names: Names) -> str | None:
    limit, in_a_row, bad = (int(first(x)) for x in (guard.limit, guard.in_a_row, guard.first_bad))
    if not 0 <= limit < in_a_row:
        return None
    what = "is not finite" if guard.usual is None else "has spikes"
    return (
        f"{leaf_name(bad, names)} {what}: {in_a_row} steps in a row were skipped, {limit} are "
        "allowed. Parameters and state are those of the last good step"
    )


def _overflowed(guard: LossScaleState, names: Names) -> str | None:
    if first(guard.scale) > LEAST or first(guard.good) > 0 or not first(guard.overflows):
        return None
    return (
        f"{leaf_name(int(first(guard.first_bad)), names)} is not finite, though the loss is "
        f"scaled by only {LEAST:.0e}: the scale is not the cause"
    )


def _stuck(guard: RewindState, names: Names) -> str | None:
    if not first(guard.stuck):
        return None
    return (
        f"{int(first(guard.bad))} losses in a row are far above the usual loss "
        f"({float(first(guard.loss.mean)):.3g}) and {int(first(guard.skipped))} steps were "
        f"skipped, after going back to the same parameters {int(first(guard.tries))} times with "
        "ever shorter steps: look at the data"
    )
