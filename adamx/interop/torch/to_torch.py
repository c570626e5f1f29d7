# SPDX-License-Identifier: Apache-2.0
"""From parameters and a state of ours to the state dicts of a torch model and its optimizer."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import paths
from adamx.interop import states
from adamx.interop.layouts import Part, undone
from adamx.interop.names import Problems, nearest
from adamx.interop.states import Moments
from adamx.interop.torch import tensors
from adamx.interop.torch.groups import Group, Order, read_groups
from adamx.interop.torch.matching import Layouts, Match, Names, match
from adamx.interop.torch.moments import product
from adamx.interop.torch.order import memory_of, parameters_of


def to_torch(
    params: Any,
    state: optax.OptState,
    opt: optax.GradientTransformation,
    weights: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    *,
    layout: str = "flax",
    names: Names = None,
    layouts: Layouts = None,
    order: Order = None,
    kind: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dicts with which a torch model and its optimizer go on where a run here stopped.

    Args:
      params, state, opt: the run here.
      weights, optimizer: `model.state_dict()` and `optimizer.state_dict()` of the torch side, new
        or old: the results have their names, dtypes, devices and groups. Learning rate and weight
        decay stay as they are there; betas and epsilon have to be those of `opt`.
      layout, names, layouts, order, kind: as in `from_torch`.

    Returns:
      For `model.load_state_dict` and `optimizer.load_state_dict`. Buffers stay as they are.

    Example (with torch):

        weights, optimizer = interop.to_torch(
            params, state, opt, model.state_dict(), adam.state_dict()
        )
        model.load_state_dict(weights)
        adam.load_state_dict(optimizer)
    """
    problems = Problems("to_torch")
    shapes = {paths.name(p): tuple(jnp.shape(leaf)) for p, leaf in paths.flatten(params)[0]}
    theirs = {name: tensors.shape_of(x) for name, x in weights.items()}
    matches, filled = match(shapes, theirs, layout, names, layouts, problems)
    groups = read_groups(optimizer, parameters_of(weights), order, kind, problems)
    arrays, moments = states.read(opt, params, state)
    for group in groups:
        for name in group.names:
            if name not in filled:
                like = nearest(name.replace(".", "/"), shapes)
                problems.add(f"{name}: torch trains it, no leaf fills it; the nearest are {like}")
    for m in matches:
        _check(m, groups, moments, problems)
    problems.check()
    made = _undone(matches, theirs, arrays)
    new = {name: tensors.to_tensor(x, weights[name]) for name, x in made.items()}
    _check_counts(groups, matches, moments, problems)
    tied = {memory_of(weights[name]): x for name, x in new.items()}
    whole = {n: new[n] if n in new else tied.get(memory_of(x), x) for n, x in weights.items()}
    return whole, _optimizer(optimizer, groups, matches, theirs, moments, new)


def _undone(
    matches: list[Match], theirs: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """torch's arrays from arrays of our leaves, those that matches fill."""
    names = list(dict.fromkeys(name for m in matches for name in m.sources))
    at = {name: i for i, name in enumerate(names)}
    parts = [Part(tuple(at[name] for name in m.sources), m.move, arrays[m.path]) for m in matches]
    made = undone(parts, [theirs[name] for name in names], names)
    return dict(zip(names, made, strict=True))


def _check(
    m: Match, groups: list[Group], moments: Mapping[str, Moments], problems: Problems
) -> None:
    of = {name: group for group in groups for name in group.names}
    for name in m.sources:
        group, held = of.get(name), moments.get(m.path)
        if group is None and held is not None:
            problems.add(f"{m.path}: `opt` trains it, torch's optimizer does not train {name}")
        if group is None:
            continue
        if held is None:
            problems.add(
                f"{m.path}: torch's optimizer trains {name}, `opt` does not train the leaf"
            )
            continue
        kinds = group.kinds
        if dict(held.kinds) != dict(kinds):
            problems.add(
                f"{m.path}: `opt` remembers {', '.join(held.kinds)}, torch's {group.kind} of "
                f"{group.label} {', '.join(kinds)}"
            )
        _check_hyper(m.path, held, group, problems)


def _check_hyper(path: str, held: Moments, group: Group, problems: Problems) -> None:
    betas = group.arguments.get("betas", (None, None))
    theirs = {"b1": betas[0], "b2": betas[1], "eps": group.arguments.get("eps")}
    for name, want in theirs.items():
        got = held.hyper.get(name)
        if isinstance(got, float | int) and want is not None and got != want:
            problems.add(f"{path}: `{name}` is {got} in `opt`, {want} in {group.label} of torch")


def _check_counts(
    groups: list[Group], matches: list[Match], moments: Mapping[str, Moments], problems: Problems
) -> None:
    for group in groups:
        here = {m.path for m in matches if set(m.sources) & set(group.names)}
        counts = {moments[path].count for path in here if path in moments}
        if len(counts) > 1:
            problems.add(f"{group.label}: the numbers of steps differ here: {sorted(counts)}")
    problems.check()


def _optimizer(
    optimizer: Mapping[str, Any],
    groups: list[Group],
    matches: list[Match],
    theirs: Mapping[str, tuple[int, ...]],
    moments: Mapping[str, Moments],
    new: Mapping[str, Any],
) -> dict[str, Any]:
    import torch

    made: dict[Any, dict[str, Any]] = {}
    for group, listed in zip(groups, optimizer["param_groups"], strict=True):
        here = [m for m in matches if set(m.sources) <= set(group.names)]
        steps = max((moments[m.path].count for m in here), default=0)
        arrays = {
            there: _undone(here, theirs, {m.path: moments[m.path].arrays[ours] for m in here})
            for ours, there in group.moments.items()
        }
        for key, name in zip(listed["params"], group.names, strict=True):
            entry = {k: tensors.to_tensor(x[name], new[name]) for k, x in arrays.items()}
            counts = steps if group.kind == "sparse_adam" else torch.tensor(float(steps))
            made[key] = {"step": counts, **entry}
            if group.kind == "nadam":
                dtype = torch.get_default_dtype()
                made[key]["mu_product"] = torch.tensor(product(group.arguments, steps), dtype=dtype)
    return {**optimizer, "state": made}
