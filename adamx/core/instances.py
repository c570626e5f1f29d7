# SPDX-License-Identifier: Apache-2.0
"""The nodes of some classes in a tree, such as the states of guards in an optimizer's state, and
what stands for a leaf that is not there."""

from typing import Any

import jax
import optax


def instances(tree: Any, *kinds: type) -> list[Any]:
    """All nodes of these classes, without those that are inside another one of them."""
    found = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kinds))
    return [x for x in found if isinstance(x, kinds)]


def is_hole(x: Any) -> bool:
    """Whether a mask of Optax's has hidden a leaf here."""
    return isinstance(x, optax.MaskedNode)


def is_none(x: Any) -> bool:
    """Whether there is no leaf here, as in Equinox."""
    return x is None
