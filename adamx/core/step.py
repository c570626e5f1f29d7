# SPDX-License-Identifier: Apache-2.0
"""One call for a step: update and apply, compiled where nobody else compiles them."""

import functools
from typing import Any

import jax
import optax

from adamx.core import paths
from adamx.core.compiled import shares, takes_compiling
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
      grads: the gradients, a tree like `params`; None for leaves that stay as they are.
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
    given, params = params, paths.beside(grads, params, "adamx.step")
    args = (grads, state, params, extra)
    run = _compiled(opt) if takes_compiling(args) else functools.partial(_step, opt)
    stepped, state = run(*args)
    return jax.tree.map(_either, grads, stepped, given, is_leaf=_is_none), state


def _step(opt: Any, grads: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
    updates, state = optax.with_extra_args_support(opt).update(grads, state, params, **extra)
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # landings step half-precision parameters in float32
        params = optax.apply_updates(params, updates)
    return put_back(params, state), state


def _compiled(opt: Any) -> Any:
    """The step as a jitted function that is freed with the optimizer, and what its schedules hold.

    A `jit` with `opt` as a static argument would keep every optimizer for ever. Recipes of ours
    are values, arguments of one jitted function; others carry their own.
    """
    if shares(opt):
        return functools.partial(_shared_step, opt)
    held = getattr(opt.update, "__dict__", {})
    if _NAME not in held:
        held[_NAME] = jax.jit(functools.partial(_step, opt))
    return held[_NAME]


_shared_step = jax.jit(_step)
_NAME = "_adamx_step"


def _either(g: Any, stepped: Any, given: Any) -> Any:
    """The parameter as it was where there is no gradient, such as an activation function."""
    return given if g is None else stepped


def _is_none(x: Any) -> bool:
    return x is None
