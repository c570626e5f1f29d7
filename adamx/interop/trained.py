# SPDX-License-Identifier: Apache-2.0
"""Which leaves an optimizer of ours trains, and by which rule."""

from typing import Any

import jax
import optax

from adamx.core.rule import Rule
from adamx.moments.described import Described
from adamx.moments.find import is_moments, leaves, template


def rules(opt: optax.GradientTransformation, params: Any) -> dict[str, Rule]:
    """The rule of each leaf that `opt` trains, by the leaf's name.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> [(name, r.name) for name, r in rules(adamx.lion(1e-3), {"kernel": jnp.ones(2)}).items()]
      [('kernel', 'lion')]
    """
    found: dict[str, Rule] = {}
    for node in jax.tree.leaves(template(opt, params), is_leaf=is_moments):
        if isinstance(node, Described):
            names, rows, _ = leaves(node.state)
            found |= {n: node.rule for n, row in zip(names, rows, strict=True) if row}
    return found
