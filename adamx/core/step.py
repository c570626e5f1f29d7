# SPDX-License-Identifier: Apache-2.0
"""One call for a step: update and apply, compiled where nobody else compiles them."""

import functools
import weakref
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
    takes_extra = isinstance(opt, optax.GradientTransformationExtraArgs)
    if takes_compiling(args):
        stepped, state = _compiled(opt, takes_extra)(*args)
    else:
        stepped, state = _step(opt.update, takes_extra, *args)
    return jax.tree.map(_either, grads, stepped, given, is_leaf=_is_none), state


def _step(
    update: Any, takes_extra: bool, grads: Any, state: Any, params: Any, extra: dict
) -> tuple[Any, Any]:
    updates, state = update(grads, state, params, **(extra if takes_extra else {}))
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # landings step half-precision parameters in float32
        params = optax.apply_updates(params, updates)
    return put_back(params, state), state


def _compiled(opt: Any, takes_extra: bool) -> Any:
    """The step as a jitted function that is freed with the optimizer, and what its schedules hold.

    A `jit` with the optimizer as a static argument would keep it for ever. Recipes of ours are
    values, arguments of one jitted function. Of others only a weak reference is kept.
    """
    if shares(opt):
        return functools.partial(_shared_step, opt.update, takes_extra)
    owner = next((x for x in (opt, opt.update) if _is_weakly_held(x)), None)
    if owner is None:
        return functools.partial(_kept_step, opt.update, takes_extra)
    key = (id(owner), takes_extra)
    if key not in _OWN:
        ref, is_whole = weakref.ref(owner), owner is opt

        def own_step(*args: Any) -> tuple[Any, Any]:
            alive: Any = ref()
            return _step(alive.update if is_whole else alive, takes_extra, *args)

        _OWN[key] = jax.jit(own_step)
        weakref.finalize(owner, _OWN.pop, key, None)
    return _OWN[key]


_shared_step = jax.jit(_step, static_argnums=1)
_kept_step = jax.jit(_step, static_argnums=(0, 1))
_OWN: dict[tuple[int, bool], Any] = {}


def _is_weakly_held(x: Any) -> bool:
    try:
        weakref.ref(x)
    except TypeError:  # a tuple, or an object with slots
        return False
    return True


def _either(g: Any, stepped: Any, given: Any) -> Any:
    """The parameter as it was where there is no gradient, such as an activation function."""
    return given if g is None else stepped


def _is_none(x: Any) -> bool:
    return x is None
