# SPDX-License-Identifier: Apache-2.0
"""One call for a step: update and apply, compiled where nobody else compiles them."""

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import optax

from adamx.core import hyperparameters, kernel_use, paths
from adamx.core.compiled import shares, takes_compiling
from adamx.core.instances import is_none
from adamx.core.kernel_use import keeping_operands, using
from adamx.core.links import links
from adamx.core.snapshots import put_back

Params = TypeVar("Params")
State = TypeVar("State")


def step(
    opt: optax.GradientTransformation,
    params: Params,
    state: State,
    grads: optax.Updates,
    **extra: Any,
) -> tuple[Params, State]:
    """Updates the parameters: `opt.update`, then `optax.apply_updates`.

    Parameters and state come first, as they come out: JAX pairs donated arguments with results in
    this order. (`opt.update` takes gradients, state, parameters; on trees alike nothing can tell
    the two orders apart.) A recipe of ours, alone or at the end of `optax.chain`, reads and writes
    each array once where `adamx.kernels` has loops for it.

    Args:
      opt: any Optax transformation.
      params: the parameters.
      state: the state, from `opt.init(params)` or the step before.
      grads: the gradients, a tree like `params`; None for leaves that stay as they are.
      **extra: passed on to `opt.update`.

    Returns:
      The new parameters and the new state.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> state = opt.init(params)
      >>> for _ in range(3):
      ...     params, state = adamx.step(opt, params, state, 2 * params)
      >>> print(f"{params[0]:.6f}")
      0.701586
    """
    given, params = params, paths.beside(grads, params, "adamx.step")
    _check_order(params, grads)
    args = (params, state, grads, extra)
    takes_extra = _takes_extra(opt)
    if takes_compiling(args):
        with keeping_operands():
            args = (params, state, grads, _with_digits(opt, extra))
            stepped, state = _compiled(opt, takes_extra)(*args)
    else:
        stepped, state = _step(opt.update, takes_extra, *args)
    return jax.tree.map(_either, grads, stepped, given, is_leaf=is_none), state


def jit_step(
    opt: optax.GradientTransformation, *, kernels: bool = True
) -> Callable[..., tuple[optax.Params, optax.OptState]]:
    """`adamx.step`, compiled, which takes over the memory of parameters and state.

    Args:
      opt: any Optax transformation.
      kernels: False for a step without loops in C++.

    Returns:
      `(params, state, grads, **extra) -> (params, state)`. The arrays that it is given for
      parameters and state are gone after the call.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> step, params = adamx.jit_step(opt), jnp.array([1.0])
      >>> state = opt.init(params)
      >>> for _ in range(3):
      ...     params, state = step(params, state, 2 * params)
      >>> print(f"{params[0]:.6f}")
      0.701586
    """

    def donated(params: Any, state: Any, grads: Any, **extra: Any) -> tuple[Any, Any]:
        with using(kernels and kernel_use.now().kernels):
            return step(opt, params, state, grads, **extra)

    compiled = jax.jit(donated, donate_argnums=(0, 1))

    @functools.wraps(compiled)
    def call(params: Any, state: Any, grads: Any, **extra: Any) -> tuple[Any, Any]:
        return compiled(params, state, grads, **_with_digits(opt, extra))

    for name in ("eval_shape", "lower", "trace"):  # what users ask a jitted function for
        setattr(call, name, getattr(compiled, name))
    return call


def _takes_extra(opt: Any) -> bool:
    """Whether `update` passes extra arguments on, as that of `MultiSteps` does, which does not say
    so by its class."""
    owner = getattr(opt.update, "__self__", None)
    passes_on = isinstance(owner, optax.MultiSteps)
    return passes_on or isinstance(opt, optax.GradientTransformationExtraArgs)


def _with_digits(opt: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """Rates that are Python's numbers, such that `1 - b2` keeps its digits on the way through
    `jit`; where all links are ours or Optax's, as those of others may read them."""

    def split(name: str, rate: Any) -> Any:
        if isinstance(rate, Mapping):  # from groups to their rates
            return {k: split(name, x) for k, x in rate.items()}
        hyperparameters.check(**{name: rate})
        return hyperparameters.Split.of(rate) if isinstance(rate, float) else rate

    rates = {k: extra[k] for k in ("b1", "b2", "b3") if isinstance(extra.get(k), float | Mapping)}
    if not rates or not all(x.module.startswith(("adamx.", "optax.")) for x in links(opt)):
        return extra
    return extra | {k: split(k, rate) for k, rate in rates.items()}


def _step(
    update: Any, takes_extra: bool, params: Any, state: Any, grads: Any, extra: dict
) -> tuple[Any, Any]:
    extra = extra if takes_extra else {}
    params, state = in_one_pass(update, params, state, grads, extra)
    return put_back(params, state), state


def in_one_pass(update: Any, params: Any, state: Any, grads: Any, extra: dict) -> tuple[Any, Any]:
    """Update and apply, by the last link of a chain where that can write parameters itself."""
    links = _links(update)
    *before, last = links or (update,)
    whole = getattr(getattr(last, "link", None), "step", None)
    states = (state,) if links is None else state
    if whole is None or not isinstance(states, tuple) or len(states) != len(before) + 1:
        return _apply(update, params, state, grads, extra)
    after, scale = [], None
    for i, (link, old) in enumerate(zip(before, states, strict=False)):
        common = getattr(getattr(link, "link", None), "scale", None)
        found = common(grads, old, **extra) if common and i == len(before) - 1 else None
        if found is None:
            grads, new = link(grads, old, params, **extra)
        else:
            scale, new = found  # a clip's, which the loop multiplies gradients by
        after.append(new)
    found = whole(params, states[-1], grads, scale, **extra)
    if found is None and scale is not None:
        grads, _ = before[-1](grads, states[len(before) - 1], params, **extra)
        found = whole(params, states[-1], grads, None, **extra)
    params, new = found or _apply(last, params, states[-1], grads, extra)
    return params, new if links is None else (*after, new)


def _apply(update: Any, params: Any, state: Any, grads: Any, extra: dict) -> tuple[Any, Any]:
    updates, state = update(grads, state, params, **extra)
    # Landings step half-precision parameters in float32.
    with jax.numpy_dtype_promotion("standard"):
        return optax.apply_updates(params, updates), state


def _links(update: Any) -> tuple[Any, ...] | None:
    """The updates that `optax.chain` calls one after the other; None for all but its own."""
    code, found = getattr(update, "__code__", None), None
    if code is not None and code is _CHAIN:
        found = inspect.getclosurevars(update).nonlocals.get("update_fns")
    return tuple(found) if found else None


_CHAIN = getattr(optax.chain(optax.identity()).update, "__code__", None)


def _check_order(params: Any, grads: Any) -> None:
    """Raises where parameters and gradients have changed places, as far as that shows."""
    leaves, treedef = paths.flatten(grads)
    for (path, _), p in zip(leaves, treedef.flatten_up_to(params), strict=True):
        if p is None:
            raise TypeError(
                f"adamx.step: the parameter {paths.name(path)} is None and its gradient is not: "
                "the order is `adamx.step(opt, params, state, grads)`, no longer `(opt, grads, "
                "state, params)`"
            )


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
