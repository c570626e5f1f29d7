# SPDX-License-Identifier: Apache-2.0
"""Whether an optimizer of ours computes what torch's groups describe, but for its hyperparameters.

The rules of ours are known leaf by leaf. Decay and direction are known where links of ours, in
Optax's chains and partitions, tell them. Optax's own states and functions tell nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.compiled import Update
from adamx.core.rule import Rule
from adamx.core.values import parts
from adamx.interop.torch.classes import CLASSES
from adamx.interop.torch.groups import Group
from adamx.interop.trained import rules
from adamx.transforms.learning_rate import Descend
from adamx.transforms.weight_decay import Decay


def differences(
    opt: optax.GradientTransformation,
    params: Any,
    groups: Sequence[Group],
    labels: Mapping[str, str],
) -> Iterator[str]:
    """What `opt` computes in another way than torch's groups, a sentence each; `labels` go from our
    leaves to those of their groups."""
    known = rules(opt, params)
    for group in groups:
        want = _rule(group)
        leaves = [name for name, label in labels.items() if label == group.label and name in known]
        said: dict[str, list[str]] = {}
        for name in leaves:
            for difference in _of_rules(known[name], want, group):
                said.setdefault(difference, []).append(name)
        for difference, names in said.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"{names[0]}{more}: {difference}"
    if known:
        yield from _of_chains(opt, groups)


def retuned(
    opt: optax.GradientTransformation,
    params: Any,
    groups: Sequence[Group],
    labels: Mapping[str, str],
) -> Iterator[str]:
    """The hyperparameters of `opt` that are not those of torch's groups, a note each."""
    known = rules(opt, params)
    for group in groups:
        theirs = _rule(group).hyper
        names = [name for name, label in labels.items() if label == group.label and name in known]
        for ours in {id(rule := known[name]): rule for name in names}.values():
            for key in theirs.keys() & ours.hyper.keys():
                here, there = ours.hyper[key], theirs[key]
                if isinstance(here, int | float) and here != there:
                    yield f"{key} is {here:g} here, {there:g} in torch's {group.label}"


def _rule(group: Group) -> Rule:
    """The rule of a group's recipe."""
    opt = CLASSES[group.kind].build(**group.arguments)
    return rules(opt, {"x": jax.ShapeDtypeStruct((1,), jnp.float32)})["x"]


def _of_rules(ours: Rule, theirs: Rule, group: Group) -> Iterator[str]:
    here, there = parts(ours.at), parts(theirs.at)
    formulas = parts(ours.formula), parts(theirs.formula)
    if here[0] is not there[0] or formulas[0][0] is not formulas[1][0]:
        yield f"`opt` computes {ours.name}, torch's {group.label} {group.kind}"
        return
    for a, b in ((here[1], there[1]), (formulas[0][1], formulas[1][1])):
        for key in dict.fromkeys([*a, *b]):
            if a.get(key) != b.get(key):
                yield (
                    f"`{key}` is {a.get(key)!r} in `opt`, as torch's {group.kind} in {group.label} "
                    f"computes it {b.get(key)!r}"
                )
    for key in dict.fromkeys([*ours.hyper, *theirs.hyper]):
        given = [x.hyper.get(key) is not None for x in (ours, theirs)]
        if given[0] != given[1]:
            yield (
                f"`{key}` is {ours.hyper.get(key)!r} in `opt`, {theirs.hyper.get(key)!r} in "
                f"torch's {group.label}"
            )


def _of_chains(opt: Any, groups: Sequence[Group]) -> Iterator[str]:
    found = list(_inside((opt.init, opt.update), set()))
    here = {_form(x.place == "before") for x in found if isinstance(x, Decay) and _pulls(x)}
    there = {
        _form(group.kind != "adamw" and not group.arguments.get("decoupled_weight_decay"))
        for group in groups
        if group.arguments.get("weight_decay")
    }
    if here and there and here - there:
        yield (
            f"the weight decay of `opt` is {' and '.join(sorted(here))}, that of torch "
            f"{' and '.join(sorted(there))}"
        )
    rates = [x for x in found if isinstance(x, Descend)]
    signs = [x for x in found if isinstance(x, float)]
    climbs = {bool(group.arguments.get("maximize")) for group in groups}
    if len(rates) == 1 and len(climbs) == 1:
        up = sum([rates[0].flip_sign, *(x < 0 for x in signs)]) % 2 == 0
    elif rates and not signs and all(x.flip_sign for x in rates):
        up = False
    else:
        return
    if climbs != {up} and any(climbs) != up:
        yield (
            f"torch's `maximize` is {any(climbs)}, `opt` goes {'up' if up else 'down'}hill: chain "
            "`optax.scale(-1.0)` before the rule"
        )


def _form(coupled: bool) -> str:
    return "coupled" if coupled else "decoupled"


def _pulls(decay: Decay) -> bool:
    return not (isinstance(decay.strength, int | float) and decay.strength == 0)


def _inside(x: Any, seen: set[int]) -> Iterator[Any]:
    """Decays, learning rates and factors of `optax.scale` in functions and links, each once."""
    if id(x) in seen or isinstance(x, jax.Array | str | bytes):
        return
    seen.add(id(x))
    if isinstance(x, Update):
        yield from _links(x.link, seen)
    elif isinstance(x, Mapping):
        for value in x.values():
            yield from _inside(value, seen)
    elif isinstance(x, tuple | list):
        for value in x:
            yield from _inside(value, seen)
    elif cells := getattr(x, "__closure__", None):
        held = dict(zip(x.__code__.co_freevars, cells, strict=True))
        module, name = getattr(x, "__module__", ""), getattr(x, "__qualname__", "")
        if module.startswith("optax") and name.startswith("scale.<locals>"):
            if isinstance(size := held["step_size"].cell_contents, int | float):
                yield float(size)
            return
        for cell in cells:
            try:
                yield from _inside(cell.cell_contents, seen)
            except ValueError:  # an empty cell
                continue


def _links(link: Any, seen: set[int]) -> Iterator[Any]:
    """The same in a link of ours, and in the links that its fields hold."""
    if isinstance(link, Decay | Descend):
        yield link
    elif isinstance(link, tuple | list):
        for x in link:
            yield from _links(x, seen)
    elif isinstance(link, Mapping) or not hasattr(link, "__dataclass_fields__"):
        yield from _inside(link, seen)
    else:
        for field in link.__dataclass_fields__:
            yield from _links(getattr(link, field), seen)
