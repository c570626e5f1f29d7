# SPDX-License-Identifier: Apache-2.0
"""From a Keras model and its optimizer to parameters and a state of ours."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from adamx.core import paths
from adamx.interop import states
from adamx.interop.keras import around_states
from adamx.interop.keras.agreement import check_agreement, check_mask
from adamx.interop.keras.around_states import Counted
from adamx.interop.keras.arranged import arranged, check_shapes, order_of
from adamx.interop.keras.configured import of_config
from adamx.interop.keras.held import Held, held
from adamx.interop.keras.pairing import Names
from adamx.interop.keras.slots import Kept, Slot
from adamx.interop.keras.transposed import Layouts, check_layouts, here
from adamx.interop.names import Problems, nearest
from adamx.interop.states import Moments


class Carried(NamedTuple):
    """A run that can go on here.

    Attributes:
      params: the parameters.
      opt: the optimizer.
      state: its state.
    """

    params: Any
    opt: optax.GradientTransformation
    state: Any


def from_keras(
    optimizer: Any,
    params: Any,
    opt: optax.GradientTransformation | None = None,
    *,
    variables: Sequence[Any] | None = None,
    names: Names = None,
    layouts: Layouts = None,
    gradient_accumulation_steps: int | None = None,
    **ours: Any,
) -> Carried:
    """A run of Keras 3, to be gone on with here.

    Everything that does not fit is reported in one error: names without a partner with the nearest
    ones, shapes that differ, another number of variables, another rule or other hyperparameters.

    Args:
      optimizer: a live optimizer, or the path of a `.weights.h5` or `.keras` file (with h5py).
      params: the parameters here, as arrays or as shapes: their tree, shapes and dtypes are those
        of the result. Kernels lie in Keras as they do in Flax, but for those of transposed
        convolutions: see `layouts`.
      opt: the optimizer here; by default the one that Keras' configuration describes, which a
        `.weights.h5` lacks. Its rule, betas and epsilon have to be Keras', and, where it is a
        recipe of ours and not a chain, its decay and clips too. The learning rate may differ.
      variables: `model.trainable_variables` of a live model, whose values the parameters become.
        Without it, and without names of weights in a file, `params` has to be the values.
      names: from our leaves to Keras' names, where those are not alike: `{"Dense_0/kernel":
        "sequential/dense/kernel"}`. For a file, which has no names of the optimizer's variables,
        our leaves in the order of `model.trainable_variables`, or from them, in that order, to the
        arrays of the file: `{"Dense_0/kernel": "layers/dense/vars/0", ...}`.
      layouts: a path pattern to the library in whose layout these kernels of transposed
        convolutions are here: `{"*/kernel": "flax"}` for Flax's `ConvTranspose`, `"haiku"`,
        `"equinox"`, `"torch"`, or `"keras"` for what is to stay as it is, as Flax's with
        `transpose_kernel=True`. Without it such a kernel, known by the name that Keras gives its
        layer (`conv2d_transpose`), is refused; a layer with another name is not recognised.
      gradient_accumulation_steps: for a `.weights.h5` of an optimizer that accumulates.
      **ours: without `opt`, what our recipes add or have instead: `storage`, `landing`, `mask`,
        `learning_rate`. A file does not say which leaves `exclude_from_weight_decay` left out of
        the decay: give `mask`. A live optimizer does.

    Returns:
      The run.

    Example (with Keras):

        carried = interop.from_keras(model.optimizer, params, variables=model.trainable_variables)
        params, opt, state = carried
    """
    problems, there = Problems("from_keras"), held(optimizer, variables)
    given, opt = opt is not None, _optimizer(opt, there, ours)
    kept = Kept.by(opt, params)
    order = order_of(there, kept, names, problems)
    problems.check()
    if given:
        check_agreement(there.config, opt, kept, problems)
        check_mask(there.decays, opt, order, params, problems)
    elif there.config and "mask" not in ours and False in (there.decays or ()):
        opt = of_config(there.config, **ours, **_mask(there, order, params))
    steps = gradient_accumulation_steps or there.accumulates or 1
    found = arranged(there, kept, order, steps, problems)
    check_layouts(there, order, names, layouts, problems)
    problems.check()
    found = {slot: here(x, slot.leaf, layouts) for slot, x in found.items()}
    leaves = {paths.name(path): leaf for path, leaf in paths.flatten(params)[0]}
    weights = _weights(there, names, order, leaves, layouts, problems)
    check_shapes(found, weights, leaves, problems)
    problems.check()
    counted = Counted(int(found[Slot("iteration")]), steps)
    _check_product(found, kept, counted, problems)
    moments = {
        leaf: Moments(rule.moments, counted.steps, _moments(found, leaf, rule.moments), rule.hyper)
        for leaf, rule in kept.rules.items()
    }
    params, state = states.write(opt, params, weights, moments, problems)
    return Carried(params, opt, around_states.put(state, found, counted))


def _optimizer(opt: Any, there: Held, ours: Mapping[str, Any]) -> optax.GradientTransformation:
    if opt is None:
        if there.config is None:
            raise ValueError("from_keras: a .weights.h5 does not say which optimizer: give `opt`")
        return of_config(there.config, **ours)
    if ours:
        said = f"`{next(iter(ours))}` is for the optimizer that Keras describes, and `opt` is given"
        raise TypeError(f"from_keras: {said}")
    return opt


def _mask(there: Held, order: Sequence[str], params: Any) -> dict[str, Any]:
    """Keras' `exclude_from_weight_decay` as the `mask` of a recipe; none where nothing decays."""
    if not (there.config or {}).get("config", {}).get("weight_decay"):
        return {}
    decays = dict(zip(order, there.decays or (), strict=True))
    return {"mask": paths.mapped(lambda name, _: decays.get(name, True), params)}


def _weights(
    there: Held,
    names: Names,
    order: Sequence[str],
    leaves: Mapping[str, Any],
    layouts: Layouts,
    problems: Problems,
) -> dict[str, Any]:
    """The value of every leaf: Keras', or that in `params`."""
    found: dict[str, Any] = {}
    if isinstance(there.weights, list):
        found = dict(zip(order, there.weights, strict=True))
    elif isinstance(there.weights, Mapping) and isinstance(names, Mapping):
        for leaf, path in names.items():
            if path in there.weights:
                found[leaf] = there.weights[path]
            else:
                like = nearest(path, there.weights)
                problems.add(f"{leaf}: the file has no {path}; the nearest are {like}")
    found = {name: here(x, name, layouts) for name, x in found.items()}
    for name, leaf in leaves.items():
        if name not in found and not hasattr(leaf, "__array__"):
            problems.add(f"{name} is a shape, and Keras' value of it is not known: see `variables`")
        found.setdefault(name, leaf)
    return found


def _moments(found: Mapping[Slot, np.ndarray], leaf: str, kinds: Any) -> dict[str, np.ndarray]:
    return {k: found[Slot(k, leaf)] for k in kinds}


def _check_product(
    found: Mapping[Slot, np.ndarray], kept: Kept, counted: Counted, problems: Problems
) -> None:
    """Our Nadam has the product of momenta in closed form; it has to be Keras'."""
    if Slot("momentum_product") not in found:
        return
    ours = around_states.momentum_product(kept, counted.steps)
    theirs = float(found[Slot("momentum_product")])
    if ours is not None and abs(ours - theirs) > 1e-4:  # of float32, after many steps
        problems.add(
            f"Keras' product of momenta is {theirs:.6g} after {counted.steps} steps, that of `opt` "
            f"{ours:.6g}: beta_1 is another, or was changed on the way"
        )
