# SPDX-License-Identifier: Apache-2.0
"""Keras' running average of the parameters, kept beside the optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes


class AverageState(NamedTuple):
    """The state of `averaged`.

    Attributes:
      inner: the optimizer's own state.
      count: the number of gradients so far.
      average: the average, a tree like the parameters.
    """

    inner: Any
    count: jax.Array
    average: Any


def averaged(
    opt: optax.GradientTransformation,
    momentum: float = 0.99,
    overwrite_every: int | None = None,
    accumulated: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""`opt` with a running average of the parameters, which starts at the first step's.

    .. math:: \bar p_1 = p_1, \quad \bar p_t = \mu \bar p_{t-1} + (1 - \mu) p_t

    The average is in the state: `optax.tree.get(state, "average")`.

    Args:
      opt: the optimizer.
      momentum: :math:`\mu`.
      overwrite_every: every so many steps the parameters become their average; None for never.
      accumulated: how many gradients make a step of `opt`. The average is updated at each of
        them, as in Keras.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> opt, p = averaged(optax.sgd(1.0), 0.5), jnp.array([2.0])
      >>> state = opt.init(p)
      >>> for _ in range(2):
      ...     updates, state = opt.update(jnp.array([1.0]), state, p)
      ...     p = optax.apply_updates(p, updates)
      >>> print(p, state.average)
      [0.] [0.5]
    """
    opt = optax.with_extra_args_support(opt)

    def init(params: optax.Params) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AverageState(opt.init(params), jnp.zeros([], jnp.int32), zeros)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("an average needs the parameters: call `update(g, state, params)`")
        steps, inner = opt.update(updates, state.inner, params, **extra)
        count = state.count // accumulated
        weight = jnp.where(count == 0, 0.0, momentum)

        def mean(before: Any, now: Any) -> Any:
            w = weight.astype(now.dtype)
            return w * before + (1 - w) * now

        average = jax.tree.map(mean, state.average, jax.tree.map(_moved, params, steps))
        if overwrite_every:
            due = (count + 1) % overwrite_every == 0
            steps = jax.tree.map(
                lambda u, a, p: jnp.where(due, (a - p).astype(u.dtype), u), steps, average, params
            )
        counted = jnp.asarray(optax.safe_increment(state.count))
        return steps, AverageState(inner, counted, average)

    return optax.GradientTransformationExtraArgs(init, update)


def _moved(p: Any, step: Any) -> Any:
    """As `optax.apply_updates`, whatever the two dtypes."""
    dtype = dtypes.working(dtypes.of(p), dtypes.of(step))
    return (jnp.asarray(p).astype(dtype) + step.astype(dtype)).astype(dtypes.of(p))
