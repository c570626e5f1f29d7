# SPDX-License-Identifier: Apache-2.0
"""Which parameter a leaf of an optimizer's state belongs to.

A leaf belongs to the parameter whose path is the end of its own path, whatever class holds it, so
this works for every Optax state.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import KeyPath

from adamx.core import paths


class Owned(NamedTuple):
    """One leaf of a state.

    Attributes:
      path: its path.
      leaf: the leaf.
      owner: the path of the parameter that it belongs to; None if it belongs to none.
      is_alike: whether it has that parameter's shape.
    """

    path: KeyPath
    leaf: Any
    owner: Any
    is_alike: bool

    @property
    def name(self) -> str:
        """The name of the parameter; empty if there is none."""
        return "" if self.owner is None else paths.name(self.owner)


def owned(state: Any, params: Any) -> list[Owned]:
    """Every leaf of a state with its parameter, in the order of `jax.tree.leaves`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"kernel": jnp.ones((2, 3))}
      >>> [(x.name, x.leaf.shape) for x in owned(optax.adam(1e-3).init(params), params)]
      [('', ()), ('kernel', (2, 3)), ('kernel', (2, 3))]
    """
    known = dict(paths.flatten(params)[0])
    return [_owned(path, leaf, known) for path, leaf in paths.flatten(state)[0]]


def _owned(path: KeyPath, leaf: Any, params: Mapping[KeyPath, Any]) -> Owned:
    """The owner is the longest path that `path` ends in, among those of the leaf's shape if there
    are any. Where the parameters are one bare array, every path ends in its empty one, and shapes
    decide."""
    tails = [path[start:] for start in range(len(path) + 1)]
    found = [tail for tail in tails if tail in params]
    alike = [tail for tail in found if jnp.shape(leaf) == jnp.shape(params[tail])]
    owner = next(iter([*alike, *filter(None, found)]), None)
    return Owned(path, leaf, owner, bool(alike))
