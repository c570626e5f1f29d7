# SPDX-License-Identifier: Apache-2.0
"""One call for a step: update and apply, compiled where nobody else compiles them."""

from typing import Any

import jax
import optax

from adamx.core.compiled import takes_compiling
from adamx.core.snapshots import put_back


def step(
    opt: optax.GradientTransformation,
    grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    **extra: Any,
) -> tuple[optax.Params, optax.OptState]:
    """Updates the parameters: `opt.update`, then `optax.apply_updates`.

    Args:
      opt: any Optax transformation.
      grads: the gradients, a tree like `params`.
      state: the state, from `opt.init(params)` or the step before.
      params: the parameters.
      **extra: passed on to `opt.update`.

    Returns:
      The new parameters and the new state.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> state = opt.init(params)
      >>> for _ in range(3):
      ...     params, state = adamx.step(opt, 2 * params, state, params)
      >>> print(f"{params[0]:.6f}")
      0.701586
    """
    args = (grads, state, params, extra)
    return _compiled_step(opt, *args) if takes_compiling(args) else _step(opt, *args)


def _step(opt: Any, grads: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
    updates, state = optax.with_extra_args_support(opt).update(grads, state, params, **extra)
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # landings step half-precision parameters in float32
        params = optax.apply_updates(params, updates)
    return put_back(params, state), state


_compiled_step = jax.jit(_step, static_argnums=0)
