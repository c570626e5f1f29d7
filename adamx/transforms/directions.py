# SPDX-License-Identifier: Apache-2.0
"""Where the directions of an optimizer are changed: in ours right behind the rule, before decay.

Another transformation only shows its updates. They point uphill, as those of `scale_by_*` do, or
downhill, as those of an optimizer: it has to be said, as the wrong sign would stop all progress.
"""

from typing import Any, Literal

import jax
import optax

from adamx.core import dtypes
from adamx.core.compiled import Change, modified, transformation
from adamx.core.instances import instances
from adamx.core.values import value
from adamx.landing import LandingState

Way = Literal["uphill", "downhill"]


def with_change(
    who: str, opt: optax.GradientTransformation, change: Change, updates: Way | None
) -> optax.GradientTransformationExtraArgs:
    """`opt` with its directions changed, in the name of `who`.

    `updates` says where those of a transformation that is not ours point.
    """
    found = modified(getattr(getattr(opt, "update", None), "link", None), change)
    if found is not None:
        if updates is not None:
            raise ValueError(f"{who}: `updates` of a recipe of ours are known, got {updates!r}")
        return transformation(found)
    if updates not in ("uphill", "downhill"):
        raise ValueError(
            f"{who}: `opt` has no rule of ours, element by element, whose directions are known: "
            "`updates` must say where its updates point, "
            f"'uphill' (a scale_by_*) or 'downhill' (an optimizer), got {updates!r}"
        )
    return transformation(Around(optax.with_extra_args_support(opt), change, updates))


@value
class Around:
    """Any transformation, with all of its updates changed."""

    opt: Any
    change: Change
    points: Way

    @property
    def name(self) -> str:
        return type(self.change).__name__.lower()

    def init(self, params: optax.Params) -> Any:
        state = self.opt.init(params)
        if instances(state, LandingState):
            raise ValueError(
                f"{self.name}: `opt` ends in a landing, which keeps what "
                "its own steps leave of parameters: put the recipe into this call by itself, and "
                "what is around it outside"
            )
        return state

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        steps, state = self.opt.update(updates, state, params, **extra)
        changed = self._turned(self.change(self._turned(steps), updates))
        return jax.tree.map(lambda c, u: dtypes.cast(c, dtypes.of(u)), changed, steps), state

    def _turned(self, tree: Any) -> Any:
        """Downhill steps as directions uphill, and back."""
        return tree if self.points == "uphill" else jax.tree.map(lambda u: -u, tree)
