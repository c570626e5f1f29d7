# SPDX-License-Identifier: Apache-2.0
"""T5X: how our states are partitioned.

T5X knows a list of state classes, and raises for a NamedTuple that is not in it and whose name ends
in `State`. These entries complete the list:

    rules = t5x.optimizers.OptaxStatePartitionRules
    rules._RULES.update(interop.t5x_rules(rules.derive_optax_logical_axes))
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

from adamx.core.instances import is_hole
from adamx.health.states import CountedState, LossScaleState, ObserveState, SkipState
from adamx.interop.keras.average import AverageState
from adamx.landing import LandingState
from adamx.moments.layout import PackedState
from adamx.transforms.weight_decay import CountState

Rule = Callable[[Any, Any], Any]

# The fields of each class that are trees like the parameters, and those that are states.
_LIKE_PARAMS: dict[Any, tuple[str, ...]] = {
    LandingState: ("remainder",),
    optax.ScaleByAmsgradState: ("mu", "nu", "nu_max"),
    optax.ScaleByLionState: ("mu",),
    optax.ScaleByAdanState: ("m", "v", "n", "g"),
    optax.contrib.ScaleByAdemamixState: ("m1", "m2", "nu"),
    optax.contrib.ScaleBySimplifiedAdEMAMixState: ("m", "n"),
    AverageState: ("average",),
    CountState: (),
    ObserveState: (),
    SkipState: (),
    CountedState: (),
    LossScaleState: (),
}
_INNER = "inner"


def t5x_rules(derive: Callable[[Any, Any], Any]) -> dict[type, Rule]:
    """From each of our state classes to a function `(state, axes of the parameters) -> axes`.

    Args:
      derive: T5X's `OptaxStatePartitionRules.derive_optax_logical_axes`, for states in states.
    """

    def rule(fields: tuple[str, ...]) -> Rule:
        return lambda state, axes: _partitioned(state, axes, fields, derive)

    rules = {kind: rule(fields) for kind, fields in _LIKE_PARAMS.items()}
    return rules | {PackedState: _packed}


def _partitioned(state: Any, axes: Any, fields: tuple[str, ...], derive: Any) -> Any:
    def one(name: str, x: Any) -> Any:
        if name in fields:
            return _beside(x, axes)
        return derive(x, axes) if name == _INNER else jax.tree.map(lambda _: None, x)

    return type(state)(**{name: one(name, x) for name, x in state._asdict().items()})


def _packed(state: PackedState, axes: Any) -> PackedState:
    arrays = {k: _beside(tree, axes) for k, tree in state.arrays.items()}
    nothing: Any = None
    return PackedState(nothing, arrays)


def _beside(tree: Any, axes: Any) -> Any:
    """The axes of the leaves that a tree has; holes stay holes."""
    if tree is None:
        return None
    return jax.tree.map(lambda x, a: x if is_hole(x) else a, tree, axes, is_leaf=is_hole)
