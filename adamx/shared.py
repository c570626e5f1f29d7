# SPDX-License-Identifier: Apache-2.0
"""Recipes that are built twice share what they compiled the first time.

`optax.inject_hyperparams` builds its optimizer anew at every step, with arrays for numbers. Were
each of them another function to `jit`, an eager loop would compile at every step. So a recipe is
built once for each set of numbers, flags, masks and storages, and scalar arrays are handed to its
`update` like the overrides of one call: they never decide what is compiled. Schedules are not
shared: what they read may have changed since.
"""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

P = ParamSpec("P")
Build = Callable[P, optax.GradientTransformationExtraArgs]

# Stands for an array while its recipe is built: a number in the range of every hyperparameter.
_PLACEHOLDER = 0.5

# How many builds of a recipe are kept, the latest used ones.
_KEPT = 16


def shared(*names: str) -> Callable[[Build[P]], Build[P]]:
    """Decorates a recipe whose `update` takes the hyperparameters `names` as overrides."""

    def decorate(build: Build[P]) -> Build[P]:
        signature = inspect.signature(build)
        kept: OrderedDict[Any, optax.GradientTransformationExtraArgs] = OrderedDict()

        @functools.wraps(build)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:
                return build(*args, **kwargs)  # whose own message names the recipe
            held = {k: v for k, v in given.items() if k in names and _is_scalar_array(v)}
            static = {**given, **dict.fromkeys(held, _PLACEHOLDER)}
            key = _key(static, names)
            if key is None:
                return build(*args, **kwargs)
            if key not in kept:
                kept[key] = build(**static)  # pyright: ignore[reportCallIssue]
            kept.move_to_end(key)
            if len(kept) > _KEPT:
                kept.popitem(last=False)
            return _holding(kept[key], held) if held else kept[key]

        return wrapper

    return decorate


def _key(given: dict[str, Any], names: tuple[str, ...]) -> Any:
    """What tells one build from another; None where it must not be shared."""
    if any(callable(v) and k in names for k, v in given.items()):
        return None
    if any(getattr(v, "relative", False) for v in given.values()):
        return None  # a decay that may look at the learning rate itself
    parts: list[Any] = [jnp.result_type(float)]  # whether x64 is enabled
    for name, value in given.items():
        leaves, treedef = jax.tree.flatten(value)  # masks are trees
        parts.append((name, treedef, tuple((type(x), x) for x in leaves)))
    try:
        hash(tuple(parts))
    except TypeError:
        return None
    return tuple(parts)


def _is_scalar_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and x.shape == ()


def _holding(
    inner: optax.GradientTransformationExtraArgs, held: dict[str, Any]
) -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        overrides = {k: v for k, v in extra.items() if v is not None}
        return inner.update(updates, state, params, **{**held, **overrides})

    return optax.GradientTransformationExtraArgs(inner.init, update)
