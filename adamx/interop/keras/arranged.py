# SPDX-License-Identifier: Apache-2.0
"""Keras' variables and weights beside our leaves."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from adamx.interop.keras.held import Held
from adamx.interop.keras.pairing import Names, pair
from adamx.interop.keras.slots import Kept, Slot, slots
from adamx.interop.names import Problems


def order_of(there: Held, kept: Kept, names: Names, problems: Problems) -> list[str]:
    """Our leaves in Keras' order of trainable variables."""
    leaves = list(kept.rules)
    if there.names is not None:
        return pair(there.names, leaves, names, problems)
    if names is None:
        shapes = [x.shape for x in there.arrays]
        problems.add(
            "a file does not name the optimizer's variables: give `names`, our leaves in the order "
            f"of `model.trainable_variables`; the variables have the shapes {shapes}"
        )
        return []
    return pair(list(names), leaves, list(names), problems)


def arranged(
    there: Held, kept: Kept, order: Sequence[str], steps: int, problems: Problems
) -> dict[Slot, np.ndarray]:
    """Keras' variables, by what they are."""
    for has_rate in (True, False):
        found = slots(kept, order, has_rate)
        if len(found) == len(there.arrays):
            break
    else:
        kinds = ", ".join(dict.fromkeys(slot.kind for slot in found))
        problems.add(
            f"Keras' optimizer has {len(there.arrays)} variables, `opt` goes with {len(found)} "
            f"({kinds}, of {len(order)} parameters) or one more for the learning rate"
        )
        problems.check()
    if kept.accumulates and steps < 2:
        problems.add("`opt` accumulates gradients: give `gradient_accumulation_steps`")
    return dict(zip(found, there.arrays, strict=True))


def check_shapes(
    found: Mapping[Slot, np.ndarray],
    weights: Mapping[str, Any],
    leaves: Mapping[str, Any],
    problems: Problems,
) -> None:
    """Adds a problem for each variable and each weight of another shape than its leaf."""
    for slot, x in found.items():
        want = jnp.shape(leaves[slot.leaf]) if slot.leaf else ()
        if x.shape != want:
            what = f"{slot.leaf}: Keras' {slot.kind}" if slot.leaf else f"Keras' {slot.kind}"
            problems.add(f"{what} has shape {x.shape}, expected {want}")
    for name, x in weights.items():
        if name in leaves and jnp.shape(x) != jnp.shape(leaves[name]):
            want = jnp.shape(leaves[name])
            problems.add(f"{name}: Keras' weight has shape {jnp.shape(x)}, expected {want}")
