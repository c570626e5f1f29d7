# SPDX-License-Identifier: Apache-2.0
"""The states of `observe` and of guards, wherever in a state they are."""

from typing import Any

import jax

from adamx.health.counted import CountedState
from adamx.health.guards import SkipState
from adamx.health.observe import ObserveState
from adamx.health.rewind import RewindState
from adamx.health.scaling import LossScaleState

KINDS = (ObserveState, SkipState, CountedState, LossScaleState, RewindState)


def nodes(state: Any) -> list[Any]:
    """Those in a state, the outer before the inner; not those in what is only kept."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, KINDS)):
        if isinstance(node, KINDS):
            found += [node, *nodes(node.inner)]
    return found
