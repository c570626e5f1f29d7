# SPDX-License-Identifier: Apache-2.0
"""torch's arrays from our leaves, and what its optimizer keeps of each parameter."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adamx.interop.layouts import Part, undone
from adamx.interop.states import Moments
from adamx.interop.torch import tensors
from adamx.interop.torch.groups import Group
from adamx.interop.torch.matching import Match
from adamx.interop.torch.moments import product


def arrays_of(
    matches: list[Match], theirs: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """torch's arrays from arrays of our leaves, those that matches fill."""
    names = list(dict.fromkeys(name for m in matches for name in m.sources))
    at = {name: i for i, name in enumerate(names)}
    parts = [Part(tuple(at[name] for name in m.sources), m.move, arrays[m.path]) for m in matches]
    made = undone(parts, [theirs[name] for name in names], names)
    return dict(zip(names, made, strict=True))


def states_of(
    groups: list[Group],
    matches: list[Match],
    theirs: Mapping[str, tuple[int, ...]],
    moments: Mapping[str, Moments],
    new: Mapping[str, Any],
) -> dict[Any, dict[str, Any]]:
    """The `state` of an optimizer's state dict; moments get the dtypes and devices of `new`,
    torch's weights."""
    import torch

    made: dict[Any, dict[str, Any]] = {}
    for group in groups:
        here = [m for m in matches if set(m.sources) <= set(group.names) and m.path in moments]
        names = {name for m in here for name in m.sources}
        steps = max((moments[m.path].count for m in here), default=0)
        arrays = {
            there: arrays_of(here, theirs, {m.path: moments[m.path].arrays[ours] for m in here})
            for ours, there in group.moments.items()
        }
        for key, name in zip(group.keys, group.names, strict=True):
            if name not in names:
                continue
            entry = {k: tensors.to_tensor(x[name], new[name]) for k, x in arrays.items()}
            counted = steps if group.kind == "sparse_adam" else torch.tensor(float(steps))
            made[key] = {"step": counted, **entry}
            if group.kind == "nadam":
                made[key]["mu_product"] = torch.tensor(product(group.arguments, steps))
    return made
