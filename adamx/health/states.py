# SPDX-License-Identifier: Apache-2.0
"""What observers and guards keep in an optimizer's state, and where in it that is."""

from typing import Any, NamedTuple

import jax

from adamx.core.snapshots import Snapshot
from adamx.health.running_stats import Usual
from adamx.health.trend import Trend


class ObserveState(NamedTuple):
    """The state of an optimizer that is observed.

    Attributes:
      inner: the optimizer's own.
      step: how many steps were taken.
      figures: scalars by name, as of the last step at which they were taken; NaN before.
      trend: how the gradient's norm has moved.
    """

    inner: Any
    step: jax.Array
    figures: dict[str, jax.Array]
    trend: Trend


class SkipState(NamedTuple):
    """The state of a guard.

    Attributes:
      inner: the optimizer's own.
      total: how many steps were skipped.
      in_a_row: how many of them were the last ones.
      first_bad: the number of the leaf, in the order of `jax.tree.leaves`, for which the last
        skipped step was skipped; -1 before, the number of leaves if it was for the state.
      limit: how many may be skipped in a row; -1 for any number.
      usual: of the logarithm of each leaf's norm; None for `skip_nonfinite`.
    """

    inner: Any
    total: jax.Array
    in_a_row: jax.Array
    first_bad: jax.Array
    limit: jax.Array
    usual: Usual | None = None


class CountedState(NamedTuple):
    """The state of a link whose interventions are counted.

    Attributes:
      inner: the link's own.
      steps: how many steps there were.
      total: in how many of them it changed a gradient.
      rate: in what share of the last hundred or so.
    """

    inner: Any
    steps: jax.Array
    total: jax.Array
    rate: jax.Array


class LossScaleState(NamedTuple):
    """The state of `scale_loss`.

    Attributes:
      inner: the optimizer's own.
      scale: what the loss is to be multiplied by, a power of two.
      good: how many steps there were since the scale has changed.
      overflows: how many steps were skipped.
      first_bad: the number of the first leaf that overflowed at the last of them; -1 before.
    """

    inner: Any
    scale: jax.Array
    good: jax.Array
    overflows: jax.Array
    first_bad: jax.Array


class RewindState(NamedTuple):
    """The state of an optimizer that can go back.

    Attributes:
      inner: the optimizer's own.
      kept: the last good parameters, and the optimizer's state with them.
      age: how many steps ago that was.
      loss: what loss is usual.
      bad: how many losses in a row were far above it.
      skipped: how many steps in a row guards within have skipped.
      total: how often the run went back.
      tries: how often to this snapshot.
      slow: for how many more steps steps are shorter.
      stuck: whether it would have gone back once more than it may.
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
    """Those in a state, the outer before the inner; not those in what is only kept."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, KINDS)):
        if isinstance(node, KINDS):
            found += [node, *nodes(node.inner)]
    return found


def check_inside(name: str, inner: Any, *refused: type) -> None:
    """An error where a guard is wrapped that has to be outside."""
    for node in nodes(inner):
        if isinstance(node, refused):
            other = "rewind" if isinstance(node, RewindState) else "scale_loss"
            why = (
                "forgets what it has seen of a step that is skipped"
                if isinstance(node, RewindState)
                else "makes gradients as large as its scale"
            )
            raise ValueError(
                f"{name} around {other}: {other} {why}. Wrap it the other way round, "
                f"`{other}({name}(…))`"
            )
