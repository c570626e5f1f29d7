# SPDX-License-Identifier: Apache-2.0
"""The learning rate: the link that turns a direction into a step downhill."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import dtypes, hyperparameters
from adamx.core.hyperparameters import Hyper
from adamx.core.step import compiled
from adamx.landing import nearest
from adamx.shared import shared


@shared("learning_rate")
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
    return compiled(nearest(descend(learning_rate, flip_sign=flip_sign)), ("learning_rate",))


def descend(
    learning_rate: Hyper | None, *, flip_sign: bool = True
) -> optax.GradientTransformationExtraArgs:
    """As `scale_by_learning_rate`, for the inside of a recipe: emits at least float32."""
    hyperparameters.check(learning_rate=learning_rate)
    sign, counts = -1 if flip_sign else 1, callable(learning_rate)

    def init(params: optax.Params) -> Any:
        zero = jnp.zeros([], jnp.int32)
        return optax.ScaleByScheduleState(count=zero) if counts else optax.EmptyState()

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        count: Any = state.count if counts else None
        if learning_rate is None and extra.get("learning_rate") is None:
            return updates, state
        rate = hyperparameters.value_at("learning_rate", learning_rate, count, extra)
        if counts:
            state = optax.ScaleByScheduleState(count=optax.safe_increment(count))
        rate = sign * rate
        return jax.tree.map(lambda u: _scaled(u, rate), updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(update: jax.Array, rate: Any) -> jax.Array:
    update = dtypes.widen(update)
    return lax.mul(
        update, hyperparameters.rounded(rate, dtypes.real(update.dtype)).astype(update.dtype)
    )
