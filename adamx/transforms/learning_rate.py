# SPDX-License-Identifier: Apache-2.0
"""The learning rate: the link that turns a direction into a step downhill."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import dtypes, hyperparameters
from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.values import value
from adamx.landing import Nearest


def scale_by_learning_rate(
    learning_rate: Hyper | None = None, *, flip_sign: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus the learning rate, computed in float32.

    Args:
      learning_rate: a number, an array, a traced value or a schedule of the step (from 0). None
        leaves updates as they are.
      flip_sign: False to multiply by plus the learning rate.

    Returns:
      A transformation with Optax's state: empty, or a counter where the rate is a schedule.
      `update(..., learning_rate=x)` overrides the rate for one call.

    Example:
      >>> import jax.numpy as jnp
      >>> link = scale_by_learning_rate(0.5)
      >>> print(link.update(jnp.array([2.0]), link.init(None))[0])
      [-1.]
    """
    link = Nearest(Descend(learning_rate, flip_sign))
    return compiled(link, ("learning_rate",), [learning_rate])


@value
class Descend:
    """As `scale_by_learning_rate`, for the inside of a recipe: emits at least float32."""

    learning_rate: Hyper | None
    flip_sign: bool = True

    def __post_init__(self) -> None:
        hyperparameters.check(learning_rate=self.learning_rate)

    def init(self, params: optax.Params) -> Any:
        if callable(self.learning_rate):
            return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        rate, state = self.rate(state, extra)
        if rate is None:
            return updates, state
        return jax.tree.map(lambda u: scaled(u, rate), updates), state

    def rate(self, state: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        """What a direction is multiplied by at this step, or None, and the state after it."""
        counts = callable(self.learning_rate)
        if counts and not isinstance(state, optax.ScaleByScheduleState):
            raise ValueError(
                f"the learning rate is a schedule, its state a {type(state).__name__} without a "
                "count: it was made by an optimizer with a constant rate. Put `optax."
                "ScaleByScheduleState(count)` in its place, with the number of steps so far"
            )
        count: Any = state.count if counts else None
        if self.learning_rate is None and extra.get("learning_rate") is None:
            return None, state
        rate = hyperparameters.value_at("learning_rate", self.learning_rate, count, extra)
        if counts:
            state = optax.ScaleByScheduleState(count=optax.safe_increment(count))
        return -rate if self.flip_sign else rate, state


def scaled(update: jax.Array, rate: Any) -> jax.Array:
    """A direction times the rate, at least in float32."""
    update = dtypes.widen(update)
    return lax.mul(
        update, hyperparameters.rounded(rate, dtypes.real(update.dtype)).astype(update.dtype)
    )
