# SPDX-License-Identifier: Apache-2.0
"""Counts how often a clip acts."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.health.guards.verdict import anywhere
from adamx.health.states import CountedState, check_own

DECAY = 0.99


def counted(link: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`link`, any clip, with a count of the steps at which it changed a gradient.

    `health.read(state)` returns it as `clipped`, and the recent share of such steps as `clip_rate`.

    Args:
      link: a transformation that leaves most gradients unchanged.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> from adamx import health
      >>> opt = optax.chain(counted(adamx.clip_by_global_norm(1.0)), adamx.adam(0.1))
      >>> state = opt.init(jnp.ones(2))
      >>> for size in (0.1, 3.0):
      ...     updates, state = opt.update(jnp.full(2, size), state, jnp.ones(2))
      >>> health.read(state)
      {'clipped': 1.0, 'clip_rate': 0.5}
    """
    link = optax.with_extra_args_support(link)

    def init(params: optax.Params) -> CountedState:
        steps, total = (jnp.zeros([], jnp.int32) for _ in range(2))
        return CountedState(link.init(params), steps, total, jnp.zeros([], jnp.float32))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, CountedState]:
        check_own("counted", state, CountedState)
        clipped, inner = link.update(updates, state.inner, params, **extra)
        changed = [
            _differ(a, b) for a, b in zip(*map(jax.tree.leaves, (updates, clipped)), strict=True)
        ]
        acted = anywhere(jnp.any(jnp.stack(changed))) if changed else jnp.zeros([], bool)
        steps = state.steps + 1
        share = jnp.maximum(1 - DECAY, 1 / steps.astype(jnp.float32))
        rate = state.rate + share * (acted.astype(jnp.float32) - state.rate)
        return clipped, CountedState(inner, steps, state.total + acted.astype(jnp.int32), rate)

    return optax.GradientTransformationExtraArgs(init, update)


def _differ(before: Any, after: Any) -> jax.Array:
    before, after = jnp.asarray(before), jnp.asarray(after)
    return jnp.any((before.astype(after.dtype) != after) & ~jnp.isnan(before))
