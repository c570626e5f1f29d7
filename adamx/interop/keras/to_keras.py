# SPDX-License-Identifier: Apache-2.0
"""From parameters and a state of ours to a Keras model and its optimizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from adamx.core import paths
from adamx.interop import states
from adamx.interop.keras import around_states, files
from adamx.interop.keras.agreement import check_agreement, check_mask
from adamx.interop.keras.arranged import arranged, check_shapes, order_of
from adamx.interop.keras.held import held, unwrapped
from adamx.interop.keras.pairing import Names
from adamx.interop.keras.slots import Kept, Slot
from adamx.interop.keras.transposed import Layouts, back, check_layouts, here
from adamx.interop.names import Problems
from adamx.interop.states import Moments


def to_keras(
    params: Any,
    state: optax.OptState,
    opt: optax.GradientTransformation,
    optimizer: Any,
    *,
    variables: Sequence[Any] | None = None,
    names: Names = None,
    layouts: Layouts = None,
    gradient_accumulation_steps: int | None = None,
    out: str | Path | None = None,
) -> None:
    """Puts a run of ours into a Keras optimizer, which goes on with it.

    Args:
      params, state, opt: the run here.
      optimizer: a live optimizer, which is built, or the path of a `.weights.h5` or `.keras` file
        of the same model and optimizer. Its learning rate stays; its other hyperparameters have to
        be those of `opt`, as in `from_keras`.
      variables: `model.trainable_variables`, which get the parameters. In a file, the weights that
        `names` maps get them.
      names, layouts, gradient_accumulation_steps: as in `from_keras`.
      out: for a file, the path of the copy that is written.

    Example (with Keras):

        interop.to_keras(params, state, opt, model.optimizer, variables=model.trainable_variables)
    """
    problems, there = Problems("to_keras"), held(optimizer, variables)
    if isinstance(optimizer, str | Path) and out is None:
        raise ValueError("to_keras: `optimizer` is a file: give `out`, the path of the copy")
    kept = Kept.by(opt, params)
    order = order_of(there, kept, names, problems)
    problems.check()
    check_agreement(there.config, opt, kept, problems)
    check_mask(there.decays, opt, order, params, problems)
    steps = gradient_accumulation_steps or there.accumulates or 1
    found = arranged(there, kept, order, steps, problems)
    leaves = {paths.name(path): leaf for path, leaf in paths.flatten(params)[0]}
    check_layouts(there, order, names, layouts, problems)
    problems.check()
    moved = {slot: here(x, slot.leaf, layouts) for slot, x in found.items()}
    check_shapes(moved, {}, leaves, problems)
    problems.check()
    weights, moments = states.read(opt, params, state)
    weights = {leaf: back(x, leaf, layouts) for leaf, x in weights.items()}
    new = _values(found, state, kept, moments, steps, problems)
    problems.check()
    arrays = [
        np.asarray(back(np.asarray(new[slot]), slot.leaf, layouts)).astype(old.dtype)
        for slot, old in found.items()
    ]
    if out is not None:
        mapped = names if isinstance(names, Mapping) else {}
        files.write(out, optimizer, arrays, {path: weights[leaf] for leaf, path in mapped.items()})
        return
    for variable, x in zip(unwrapped(optimizer).variables, arrays, strict=True):
        variable.assign(x)
    for variable, leaf in zip(variables or (), order, strict=variables is not None):
        variable.assign(weights[leaf])


def _values(
    found: Mapping[Slot, np.ndarray],
    state: Any,
    kept: Kept,
    moments: Mapping[str, Moments],
    steps: int,
    problems: Problems,
) -> dict[Slot, Any]:
    """Keras' variables, by what they are."""
    counts = {m.count for m in moments.values()}
    if len(counts) != 1:
        problems.add(f"Keras counts steps once, the leaves have taken {sorted(counts)}")
        return {}
    count = counts.pop()
    around, gradients = around_states.taken(state, count)
    if gradients is None:
        gradients = count * steps + around_states.pending(state)
    new: dict[Slot, Any] = {**found, **around, Slot("iteration"): gradients}
    for slot in found:
        if slot.kind == "momentum_product":
            new[slot] = around_states.momentum_product(kept, count)
            if new[slot] is None:
                problems.add("Keras' Nadam needs a beta_1 that is a number, `opt` has another")
        elif slot.leaf and slot not in around:
            new[slot] = moments[slot.leaf].arrays[slot.kind]
    return new
