# SPDX-License-Identifier: Apache-2.0
"""What a live Keras optimizer or a file of Keras holds: its variables, their names, the weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adamx.interop.keras import files
from adamx.interop.keras.configured import config_of


class Held(NamedTuple):
    """The optimizer's variables and its configuration, and what is known of the trainable
    variables.

    Attributes:
      names: None in a file.
      weights: in the order of `names`, or by their path in a file.
      decays: whether each decays: Keras saves nothing of `exclude_from_weight_decay`.
    """

    arrays: list[np.ndarray]
    names: list[str] | None
    weights: list[np.ndarray] | Mapping[str, np.ndarray] | None
    config: Mapping[str, Any] | None
    decays: list[bool] | None = None

    @property
    def accumulates(self) -> int | None:
        """How many gradients make a step, where that is known."""
        return (self.config or {}).get("config", {}).get("gradient_accumulation_steps")


def held(source: Any, variables: Sequence[Any] | None) -> Held:
    """What a live optimizer (with its model's trainable variables) or the file at a path holds."""
    if isinstance(source, str | Path):
        if variables is not None:
            raise ValueError("`variables` are of a live model, got a file too")
        file = files.read(source)
        if not file.optimizer:
            raise ValueError(f"{source} holds no variables of an optimizer")
        return Held(file.optimizer, None, file.weights, file.config)
    source = unwrapped(source)
    if not source.built:
        raise ValueError("the Keras optimizer has no variables yet: train a step or call `build`")
    names = [
        v.name.removesuffix("_momentum") for v in source.variables if v.name.endswith("_momentum")
    ]
    weights = None
    if variables is not None:
        _check_order(source, variables, names)
        names = [getattr(v, "path", v.name) for v in variables]
        weights = [as_numpy(v) for v in variables]
    arrays = [as_numpy(v) for v in source.variables]
    return Held(arrays, names, weights, config_of(source), _decays(source))


def _decays(optimizer: Any) -> list[bool] | None:
    known = getattr(optimizer, "_trainable_variables", None)
    asked = getattr(optimizer, "_use_weight_decay", None)
    return None if known is None or asked is None else [bool(asked(v)) for v in known]


def _check_order(optimizer: Any, variables: Sequence[Any], slots: Sequence[str]) -> None:
    """Raises where these are not the variables that the optimizer trains, in its order. Where Keras
    does not tell these, its names of moments do: `slots`, those of variables with `_` for `/`."""
    known = getattr(optimizer, "_trainable_variables", None)
    if known is not None:
        alike = [x is y for x, y in zip(variables, known, strict=False)]
        there = [getattr(v, "path", v.name) for v in known]
    else:
        given = [getattr(v, "path", v.name).replace("/", "_") for v in variables]
        alike, there = [x == y for x, y in zip(given, slots, strict=False)], list(slots)
    if len(variables) != len(there):
        raise ValueError(
            f"`variables` has {len(variables)} variables, the optimizer trains {len(there)}: give "
            "`model.trainable_variables` of its own model"
        )
    if False in alike:
        at = alike.index(False)
        got = getattr(variables[at], "path", variables[at].name)
        raise ValueError(
            f"`variables` must be those that the optimizer trains, in its order: number {at} is "
            f"{got}, the optimizer's {there[at]}; give `model.trainable_variables` of its own model"
        )


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside a `LossScaleOptimizer`; any other as it is."""
    if not hasattr(optimizer, "variables") or not hasattr(optimizer, "get_config"):
        kind = type(optimizer).__name__
        raise TypeError(f"expected a Keras optimizer or the path of a file, got {kind}")
    return getattr(optimizer, "inner_optimizer", optimizer)


def as_numpy(variable: Any) -> np.ndarray:
    """The value of a Keras variable."""
    return np.asarray(variable.value)
