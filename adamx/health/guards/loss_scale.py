# SPDX-License-Identifier: Apache-2.0
"""Float16 gradients without underflow: the loss is multiplied by a scale that adapts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes
from adamx.core.hyperparameters import check_count
from adamx.health.guards.verdict import finite, unless
from adamx.health.states import LossScaleState, RewindState, check_inside, check_own, nodes

LEAST, MOST = 2.0**-24, 2.0**40


def scale_loss(
    opt: optax.GradientTransformation, initial: float = 2.0**15, growth_interval: int = 2000
) -> optax.GradientTransformationExtraArgs:
    """`opt` for gradients of `scaled(loss, state)`, the loss times the scale.

    Gradients are divided by the scale in float32 before the optimizer sees them. If one is not
    finite, the step is skipped and the scale is halved; after `growth_interval` good steps it is
    doubled. `adamx.parallel.data_parallel` calls `scaled` itself.

    Clipping and other guards belong inside `opt`, where gradients are unscaled; `rewind` goes
    around `scale_loss`, and `scale_loss` around groups and masks: the scale is in the gradients of
    all leaves.

    Args:
      opt: any Optax transformation, a whole optimizer with its clipping.
      initial: the initial scale, a power of two.
      growth_interval: after how many good steps the scale doubles.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt, params = scale_loss(adamx.adam(0.1)), jnp.ones(2, jnp.float16)
      >>> def loss(params):
      ...     return (1e-7 * params).astype(jnp.float32).sum()
      >>> state = opt.init(params)
      >>> grads = jax.grad(lambda p: scaled(loss(p), state))(params)
      >>> updates, state = opt.update(grads, state, params)
      >>> print(updates)
      [-0.09226064 -0.09226064]

    References:
      Micikevicius et al., `Mixed Precision Training <https://arxiv.org/abs/1710.03740>`_, 2017.
    """
    if not (LEAST <= initial <= MOST and math.log2(initial) % 1 == 0):
        raise ValueError(f"`initial` must be a power of two, 2^-24 to 2^40, got {initial}")
    check_count(growth_interval=growth_interval)
    opt = optax.with_extra_args_support(opt)

    def init(params: optax.Params) -> LossScaleState:
        good, overflows = (jnp.zeros([], jnp.int32) for _ in range(2))
        scale, none = jnp.full([], initial, jnp.float32), jnp.full([], -1, jnp.int32)
        inner = opt.init(params)
        check_inside("scale_loss", inner, RewindState)
        return LossScaleState(inner, scale, good, overflows, none)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, LossScaleState]:
        check_own("scale_loss", state, LossScaleState)
        grads = jax.tree.map(lambda g: _divided(g, state.scale), updates)
        steps, inner = opt.update(grads, state.inner, params, **extra)
        # Only gradients are checked: a smaller scale does not repair bad steps or states.
        skip, leaf = finite(jax.tree.leaves(grads), grads, (), ())
        steps, inner = unless(skip, steps, inner, state.inner)
        grows = ~skip & (state.good + 1 >= growth_interval)
        scale = jnp.where(skip, 0.5, jnp.where(grows, 2.0, 1.0)) * state.scale
        return steps, LossScaleState(
            inner,
            jnp.clip(scale, LEAST, MOST),
            jnp.where(skip | grows, 0, state.good + 1),
            state.overflows + skip.astype(jnp.int32),
            jnp.where(skip, leaf.astype(jnp.int32), state.first_bad),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def scaled(loss: jax.Array, state: optax.OptState) -> jax.Array:
    """The loss times the scale in the state, in float32 or wider; the loss itself if the state has
    no scale.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> state = scale_loss(adamx.adam(0.1), initial=8.0).init(jnp.ones(2, jnp.float16))
      >>> print(scaled(jnp.float16(0.5), state))
      4.0
    """
    for node in nodes(state):
        if isinstance(node, LossScaleState):
            loss = dtypes.widen(loss)
            loss = loss * node.scale.astype(loss.dtype)
    return loss


def _divided(g: jax.Array, scale: jax.Array) -> jax.Array:
    g = dtypes.widen(g)
    return g / scale.astype(g.dtype)
