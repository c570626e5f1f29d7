# SPDX-License-Identifier: Apache-2.0
"""From parameters and a state of ours to the state dicts of a torch model and its optimizer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from adamx.core import paths
from adamx.interop import states
from adamx.interop.names import Problems, nearest
from adamx.interop.report import Report, lost
from adamx.interop.states import Moments
from adamx.interop.torch import tensors
from adamx.interop.torch.checked import check_weights
from adamx.interop.torch.comparing import differences
from adamx.interop.torch.groups import Group, read_groups
from adamx.interop.torch.matching import Layouts, Match, Names, match
from adamx.interop.torch.moments import moments_of
from adamx.interop.torch.naming import Order
from adamx.interop.torch.order import memory_of
from adamx.interop.torch.rows import report_of
from adamx.interop.torch.tensor_states import arrays_of, states_of


class Back(NamedTuple):
    """The state dicts of a run that goes on in torch.

    Attributes:
      weights: for `model.load_state_dict`.
      optimizer: for `optimizer.load_state_dict`.
      report: what went where, and what torch's dtypes lose of it.
    """

    weights: dict[str, Any]
    optimizer: dict[str, Any]
    report: Report


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
) -> Back:
    """The state dicts with which a torch model and its optimizer go on where a run here stopped.

    Args:
      params, state, opt: the run here.
      weights, optimizer: `model.state_dict()` and `optimizer.state_dict()` of the torch side, new
        or old: the results have their names, dtypes, devices and groups. Learning rate and weight
        decay stay as they are there; betas, epsilon, the rule, the form of decay and the direction
        have to be those of `opt`, as far as it tells them: Optax's own transformations do not.
      layout, names, layouts, order, kind: as in `from_torch`.

    Returns:
      Both state dicts, and a report. Buffers stay as they are. Where a leaf is not trained here and
      torch has no moments of it either, it gets none: for torch it never had a gradient.

    With a model and an optimizer of torch's:

        back = interop.to_torch(params, state, opt, model.state_dict(), adam.state_dict())
        model.load_state_dict(back.weights)
        adam.load_state_dict(back.optimizer)
    """
    problems = Problems("to_torch")
    check_weights(weights)
    shapes = {paths.name(p): tuple(jnp.shape(leaf)) for p, leaf in paths.flatten(params)[0]}
    theirs = {name: tensors.shape_of(x) for name, x in weights.items()}
    matches, filled = match(shapes, theirs, layout, names, layouts, problems)
    groups = read_groups(optimizer, weights, order, kind, problems, filled)
    if waiting := states.waiting(state):
        problems.add(
            f"`state` has gradients of {waiting} small steps that wait in MultiSteps, for which "
            "torch has no place: go on until they are applied"
        )
    arrays, moments = states.read(opt, params, state)
    for group in groups:
        for name in group.names:
            if name not in filled:
                like = nearest(name.replace(".", "/"), shapes)
                problems.add(f"{name}: torch trains it, no leaf fills it; the nearest are {like}")
    for m in matches:
        _check(m, groups, moments, problems)
    labels = {
        m.path: group.label for m in matches for group in groups if m.sources[0] in group.names
    }
    if not problems:
        problems.add(*differences(opt, params, groups, labels))
    problems.check()
    found = arrays_of(matches, theirs, arrays).items()
    new = {name: tensors.to_tensor(x, weights[name]) for name, x in found}
    _check_counts(groups, matches, moments, problems)
    made = {**optimizer, "state": states_of(groups, matches, theirs, moments, new)}
    written = read_groups(made, weights, order, kind, problems, filled)
    labels, after = moments_of(written, matches, theirs, problems)
    laid_out = {m.path: m.move(*(tensors.to_numpy(new[n]) for n in m.sources)) for m in matches}
    gone = lost((arrays, moments), (laid_out, after))
    return Back(_whole(weights, new), made, report_of(matches, labels, gone))


def _whole(weights: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """All entries of a model's state dict: new, tied to one that is new, or as they were."""
    places = {memory_of(weights[name]): x for name, x in new.items()}
    places.pop(None, None)
    return {n: new[n] if n in new else places.get(memory_of(x), x) for n, x in weights.items()}


def _check(
    m: Match, groups: list[Group], moments: Mapping[str, Moments], problems: Problems
) -> None:
    of = {name: group for group in groups for name in group.names}
    for name in m.sources:
        group, held = of.get(name), moments.get(m.path)
        if group is None and held is not None:
            problems.add(f"{m.path}: `opt` trains it, torch's optimizer does not train {name}")
        if group is None or (held is None and name in group.resting):
            continue
        if held is None:
            problems.add(
                f"{m.path}: torch's optimizer trains {name}, `opt` does not train the leaf"
            )
            continue
        if dict(held.kinds) != group.kinds:
            problems.add(
                f"{m.path}: `opt` remembers {', '.join(held.kinds)}, torch's {group.kind} of "
                f"{group.label} {', '.join(group.kinds)}"
            )
        _check_hyper(m.path, held, group, problems)


def _check_hyper(path: str, held: Moments, group: Group, problems: Problems) -> None:
    betas = group.arguments.get("betas", (None, None))
    theirs = {"b1": betas[0], "b2": betas[1]}
    theirs |= {name: group.arguments.get(name) for name in ("eps", "momentum_decay")}
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
