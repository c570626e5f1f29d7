# SPDX-License-Identifier: Apache-2.0
"""The nodes of some classes in a tree, such as the states of guards in an optimizer's state."""

from typing import Any

import jax


def instances(tree: Any, *kinds: type) -> list[Any]:
    """All nodes of these classes, without those that are inside another one of them."""
    found = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kinds))
    return [x for x in found if isinstance(x, kinds)]
