# SPDX-License-Identifier: Apache-2.0
"""The states of observers and guards, and how to find them in an optimizer's state."""

from typing import Any, NamedTuple

import jax

from adamx.core.instances import instances
from adamx.core.rows import check_state
from adamx.core.snapshots import Snapshot
from adamx.health.running_stats import Usual
from adamx.health.trend import Trend


class ObserveState(NamedTuple):
    """The state of `observe`.

    Attributes:
      inner: the optimizer's own state.
      step: the number of steps taken.
      figures: scalars by name, from the last step that was observed; NaN before the first.
      trend: the trend of the gradient's norm.
    """

    inner: Any
    step: jax.Array
    figures: dict[str, jax.Array]
    trend: Trend


class Window(NamedTuple):
    """The last values of some numbers: a row for each, in the order in which they came, cyclic."""

    looks: jax.Array
    values: jax.Array


class SkipState(NamedTuple):
    """The state of `skip_nonfinite`, `skip_spikes` and `skip_outliers`.

    Attributes:
      inner: the optimizer's own state.
      total: the number of skipped steps.
      in_a_row: how many of the latest steps were skipped in a row.
      first_bad: the number of the leaf, in the order of `jax.tree.leaves`, that caused the last
        skip; -1 before the first skip, the number of leaves if the state caused it.
      limit: how many steps may be skipped in a row; -1 for any number.
      usual: statistics of the logarithm of each leaf's norm, or the last losses and norms of
        `skip_outliers`; None for `skip_nonfinite`.
    """

    inner: Any
    total: jax.Array
    in_a_row: jax.Array
    first_bad: jax.Array
    limit: jax.Array
    usual: Usual | Window | None = None


class CountedState(NamedTuple):
    """The state of `counted`.

    Attributes:
      inner: the link's own state.
      steps: the number of steps.
      total: the number of steps at which the link changed a gradient.
      rate: the share of such steps among the last hundred or so.
    """

    inner: Any
    steps: jax.Array
    total: jax.Array
    rate: jax.Array


class LossScaleState(NamedTuple):
    """The state of `scale_loss`.

    Attributes:
      inner: the optimizer's own state.
      scale: the factor by which to multiply the loss, a power of two.
      good: the number of steps since the scale last changed.
      overflows: the number of skipped steps.
      first_bad: the number of the first leaf that overflowed at the last skip; -1 before any.
    """

    inner: Any
    scale: jax.Array
    good: jax.Array
    overflows: jax.Array
    first_bad: jax.Array


class RewindState(NamedTuple):
    """The state of `rewind`.

    Attributes:
      inner: the optimizer's own state.
      kept: the snapshot: the last good parameters, with the optimizer's state.
      age: the age of the snapshot in steps.
      loss: running statistics of the loss.
      bad: how many losses in a row were bad.
      skipped: how many steps in a row the guards inside skipped.
      total: how often the run went back.
      tries: how often it went back to this snapshot.
      slow: how many more steps are shortened.
      stuck: whether it would go back again but has reached its limit.
    """

    inner: Any
    kept: Snapshot
    age: jax.Array
    loss: Usual
    bad: jax.Array
    skipped: jax.Array
    total: jax.Array
    tries: jax.Array
    slow: jax.Array
    stuck: jax.Array


KINDS = (ObserveState, SkipState, CountedState, LossScaleState, RewindState)


def nodes(state: Any) -> list[Any]:
    """All guard and observer states, outermost first, snapshots excluded."""
    found = []
    for node in instances(state, *KINDS):
        found += [node, *nodes(node.inner)]
    return found


def check_own(name: str, state: Any, wanted: type) -> None:
    """Raises where the state is not of the guard or observer, but such as of what is in it."""
    begin = f"with the state of what is inside {name}, go on with "
    check_state(name, state, wanted, begin + "`init(params)._replace(inner=state)`")


def check_inside(name: str, inner: Any, *refused: type) -> None:
    """Raises if `inner` contains a guard that has to be outside."""
    for node in nodes(inner):
        if isinstance(node, refused):
            other = "rewind" if isinstance(node, RewindState) else "scale_loss"
            why = (
                "forgets its record of a step that is skipped"
                if isinstance(node, RewindState)
                else "multiplies gradients by its scale"
            )
            raise ValueError(
                f"{name} around {other}: {other} {why}. Wrap it the other way round, "
                f"`{other}({name}(…))`"
            )
