# SPDX-License-Identifier: Apache-2.0
"""A rule whose directions are changed: by a mask, or by the signs of the gradients."""

from typing import Any

import optax

from adamx.core.compiled import Change
from adamx.core.links import Inside
from adamx.core.values import value


@value
class Modified:
    """A link that makes directions, and what is made of them. The state is the link's own."""

    link: Any
    change: Change

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is made of the directions, in order."""
        return (*getattr(self.link, "changes", ()), self.change)

    def inside(self) -> list[Inside]:
        """The link, for tools that look into optimizers."""
        return [Inside((), self.link)]

    def init(self, params: optax.Params) -> Any:
        return self.link.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        directions, state = self.link.update(updates, state, params, **extra)
        return self.change(directions, updates), state

    def modified(self, change: Change) -> "Modified":
        """The link with its directions changed once more."""
        return Modified(self, change)
