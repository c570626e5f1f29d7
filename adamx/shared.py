# SPDX-License-Identifier: Apache-2.0
"""Recipes that are built twice share what they compiled the first time.

`optax.inject_hyperparams` builds its optimizer anew at every step, with arrays for numbers. Were
each of them another function to `jit`, an eager loop would compile at every step. So a recipe is
built once for each set of numbers, flags and functions, and arrays are handed to its `update` like
the overrides of one call: they never decide what is compiled.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import numpy as np
import optax

P = ParamSpec("P")
Build = Callable[P, optax.GradientTransformationExtraArgs]

# Stands for an array while its recipe is built: a number in the range of every hyperparameter.
_PLACEHOLDER = 0.5


def shared(*names: str) -> Callable[[Build[P]], Build[P]]:
    """Decorates a recipe whose `update` takes the hyperparameters `names` as overrides."""

    def decorate(build: Build[P]) -> Build[P]:
        signature = inspect.signature(build)
        cached = functools.lru_cache(maxsize=256, typed=True)(build)

        @functools.wraps(build)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
            given = signature.bind(*args, **kwargs).arguments
            held = {k: v for k, v in given.items() if k in names and _is_scalar_array(v)}
            if held and any(isinstance(v, tuple) for v in given.values()):
                return build(*args, **kwargs)  # a decay, which may be relative to the array
            try:
                inner = cached(**{**given, **dict.fromkeys(held, _PLACEHOLDER)})  # pyright: ignore
            except TypeError as e:
                if "unhashable" not in str(e):
                    raise
                return build(*args, **kwargs)
            return _holding(inner, held) if held else inner

        return wrapper

    return decorate


def _is_scalar_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and x.shape == ()


def _holding(
    inner: optax.GradientTransformationExtraArgs, held: dict[str, Any]
) -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        return inner.update(updates, state, params, **{**held, **extra})

    return optax.GradientTransformationExtraArgs(inner.init, update)
