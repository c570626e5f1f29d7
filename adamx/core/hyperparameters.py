# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters: numbers, arrays, traced values or schedules, checked once, resolved per step.

Python numbers stay Python numbers (double precision) until a rule has computed with them, so
that `1 - b2` is exact; everything else is brought to the dtype of the step.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

Schedule = Callable[[jax.Array], ArrayLike]
Hyper = ArrayLike | Schedule

# The range [least, bound) of each hyperparameter that may not simply be any number >= 0.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("b1", "b2", "b3", "momentum", "shampoo_beta"), (0.0, 1.0)),
    **dict.fromkeys(("learning_rate", "strength", "threshold"), (-math.inf, math.inf)),
    **dict.fromkeys(("step_offset", "decay_offset"), (-math.inf, math.inf)),
    "reset_every": (1.0, math.inf),
}

# What the `update` of a recipe takes as overrides for one call, as far as its rule has it.
NAMES = (
    "learning_rate",
    "weight_decay",
    "b1",
    "b2",
    "b3",
    "eps",
    "eps_root",
    "threshold",
    "momentum_decay",
    "smooth_beta",
    "difference_weight",
    "alpha",
    "warmup_steps",
    "theta",
    "reset_every",
    "clip_after",
    "gamma",
)


def check(**hyper: Hyper | None) -> None:
    """Raises where a static value is out of range; arrays must be scalars, schedules pass.

    Example:
      >>> check(b1=0.9, b2=1.0)
      Traceback (most recent call last):
      ...
      ValueError: `b2` must be in [0, 1), got 1.0
    """
    for name, value in hyper.items():
        if value is None or callable(value) or isinstance(value, Split):
            continue
        if isinstance(value, bool | np.bool_ | str | bytes) or not hasattr(value, "__float__"):
            raise TypeError(f"`{name}` must be a number, an array or a schedule, got {value!r}")
        if np.shape(value) != ():
            raise ValueError(f"`{name}` must be a scalar, got an array of shape {np.shape(value)}")
        dtype = np.dtype(getattr(value, "dtype", float))
        if dtype.kind in "bcO":
            raise TypeError(f"`{name}` must be a real number, got {dtype}")
        if isinstance(value, int | float | np.number | np.ndarray):
            _check_range(name, float(value))


def checked(**hyper: Hyper | None) -> dict[str, Hyper]:
    """Those that are given, after `check`."""
    check(**hyper)
    return {name: value for name, value in hyper.items() if value is not None}


def check_static(**hyper: ArrayLike) -> None:
    """Raises where a value is a schedule, for links that keep no count."""
    for name, value in hyper.items():
        if callable(value):
            raise TypeError(f"`{name}` must be a number or an array, got a schedule")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises where `value` is none of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_count(least: int = 1, **given: Any) -> None:
    """Raises where a number of steps, or of other things, is not whole, or below `least`."""
    for name, count in given.items():
        is_whole = np.issubdtype(getattr(count, "dtype", type(count)), np.integer)
        is_known = not isinstance(count, Tracer)
        if not (is_whole and is_known and np.ndim(count) == 0 and count >= least):
            raise ValueError(f"`{name}` must be a whole number of at least {least}, got {count!r}")


def check_optimizer(**given: Any) -> None:
    """Raises where an argument is no optimizer, as where two arguments changed places."""
    for name, opt in given.items():
        if not (hasattr(opt, "init") and hasattr(opt, "update")):
            raise TypeError(
                f"`{name}` must be an optimizer, with `init` and `update`, got a "
                f"{type(opt).__name__}"
            )


def _check_range(name: str, value: float) -> None:
    least, bound = _RANGES.get(name, (0.0, math.inf))
    if least <= value < bound and math.isfinite(value):
        return
    rule = "finite" if least == -math.inf else f"in [{least:g}, {bound:g})"
    raise ValueError(f"`{name}` must be {rule}, got {value}")


class Split(NamedTuple):
    """A Python number on its way through `jit`: two float32s, whose sum has twice the digits."""

    high: ArrayLike
    low: ArrayLike

    @classmethod
    def of(cls, value: float) -> "Split":
        high = np.float32(value)
        return cls(high, np.float32(value - float(high)))


def value_at(name: str, value: Hyper | None, count: Any, overrides: Mapping[str, Any]) -> Any:
    """The value at step `count` (from 0): the call's override, else the schedule's, else itself."""
    given = overrides.get(name)
    if given is not None:
        check_static(**{name: given})
        check(**{name: given})
        return given
    if not callable(value):
        return value
    found = value(count)
    if not hasattr(found, "__float__") or np.shape(found) != ():
        shape = getattr(found, "shape", None)
        got = f"a {type(found).__name__}" if shape is None else f"an array of shape {shape}"
        raise ValueError(f"`{name}`: a schedule must return a scalar, got {got}")
    return found


def exact(value: Any, dtype: jnp.dtype) -> Any:
    """A Python number as it is, split or whole, else a strongly typed array of `dtype`."""
    if isinstance(value, Split):
        return Split(*(jnp.asarray(part).astype(dtype) for part in value))
    return float(value) if isinstance(value, int | float) else jnp.asarray(value).astype(dtype)


def rounded(value: ArrayLike, dtype: jnp.dtype) -> Any:
    """A scalar of `dtype`; what is known now is NumPy's, and costs a trace nothing."""
    if isinstance(value, int | float | np.generic):
        return np.dtype(dtype).type(value)
    return jnp.asarray(value).astype(dtype)
