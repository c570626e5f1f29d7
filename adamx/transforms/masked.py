# SPDX-License-Identifier: Apache-2.0
"""A link for some leaves only, with a mask that is a value."""

import dataclasses
from typing import Any

import jax
import optax

from adamx.core import paths
from adamx.core.compiled import transformation
from adamx.core.links import Inside, is_function, seen
from adamx.core.values import value

Mask = Any  # a tree of booleans, a function of the parameters to one, or a path pattern


@value
class Masked:
    """A link for some leaves only, as `optax.masked`. The mask is a pattern, a function, or a tree
    as its leaves and its structure: what becomes of the tree that was given does not matter."""

    link: Any
    mask: Any

    def init(self, params: optax.Params) -> Any:
        return self._masked().init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        params = None if params is None else paths.beside(updates, params, "weight decay")
        return self._masked().update(updates, state, params, **extra)

    def leaves(self, updates: optax.Updates) -> list[bool]:
        """For each leaf of `updates`, whether the link acts on it."""
        mask = self._mask
        mask = mask(updates) if is_function(mask) else mask
        spread = jax.tree.map(
            lambda acts, below: jax.tree.map(lambda _: acts, below), mask, updates
        )
        return jax.tree.leaves(spread)

    def inside(self) -> list[Inside]:
        """The link, for tools that look into optimizers."""
        return [Inside(("inner_state",), self.link, None, seen(self._mask))]

    def _masked(self) -> Any:
        return optax.masked(transformation(self.link), self._mask)

    @property
    def _mask(self) -> Any:
        if isinstance(self.mask, str):
            return paths.mask(self.mask)
        return self.mask.tree if isinstance(self.mask, Frozen) else self.mask


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A tree of booleans, compared by value."""

    leaves: tuple[bool, ...]
    treedef: Any

    @property
    def tree(self) -> Any:
        """A copy of the tree."""
        return self.treedef.unflatten(self.leaves)


def frozen(mask: Mask) -> Any:
    """A mask as a value."""
    if isinstance(mask, str) or is_function(mask):
        return mask
    leaves, treedef = jax.tree.flatten(mask)
    return Frozen(tuple(map(bool, leaves)), treedef)
