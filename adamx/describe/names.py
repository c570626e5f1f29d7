# SPDX-License-Identifier: Apache-2.0
"""What the optimizer of a leaf is called: its recipes and links, within what wraps them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from adamx.core.links import Link, public
from adamx.describe.decays import is_decay
from adamx.describe.rates import is_rate
from adamx.describe.settings import shown, value_at_start, value_of
from adamx.landing.transform import LandingLink
from adamx.moments.scale_by import ScaleBy
from adamx.transforms.clipping.bounded import Bounded

Told = list[tuple[list[str], str]]  # the wrappers and the name of each recipe or link


def told(mine: Sequence[Link]) -> Told:
    """The recipes and links of a leaf in the order of the chain, without rate, decay and landing
    unless there is nothing else."""
    found, rest = [], []
    for link in mine:
        recipe = next((x.name for x in link.within if x.kind == "recipe"), None)
        wrappers = [x.name for x in link.within if x.kind == "wrapper"]
        is_part = is_rate(link) or is_decay(link) or isinstance(value_of(link), LandingLink)
        if link.made != "identity":
            row = (wrappers, recipe or _called(link))
            (rest if is_part and recipe is None else found).append(row)
    return found or rest


def shared(told: list[Told]) -> tuple[list[str], list[Told]]:
    """What is around all leaves' optimizers: wrappers, then links; and what is left without it."""
    found = []
    while (first := _common(told, lambda row: {tuple(w[:1]) for w, _ in row})) and first[0]:
        found.append(first[0][0])
        told = [[(wrappers[1:], name) for wrappers, name in row] for row in told]
    while first := _common(told, lambda row: {row[0][1]} if _begins_with_clip(row) else {0, 1}):
        found.append(first[0])
        told = [row[1:] for row in told]
    return found, told


def _common(told: list[Told], of: Callable[[Told], set[Any]]) -> list[Any]:
    """The one thing that `of` finds in all leaves, in a list; empty if it finds none, or more."""
    found = set().union(*map(of, told)) if told and all(told) else set()
    return list(found) if len(found) == 1 else []


def _begins_with_clip(row: Told) -> bool:
    return len(row) > 1 and not row[0][0] and "clip" in row[0][1]


def nested(rows: Told) -> str:
    """`a > b(c > d)` from the wrappers and names of links."""
    found = []
    for first, group in itertools.groupby(rows, key=lambda row: row[0][:1]):
        if first:
            inner = nested([(wrappers[1:], name) for wrappers, name in group])
            found.append(f"{first[0]}({inner})")
        else:
            found += dict.fromkeys(name for _, name in group)
    return " > ".join(found)


_CLIPS = {
    "_clipped_values": "clip",
    "_clipped_leaves": "clip_by_leaf_norm",
    "_clipped_whole": "clip_by_global_norm",
    "_clipped_blocks": "clip_by_block_rms",
    "_clipped_units": "adaptive_grad_clip",
}


def _called(link: Link) -> str:
    x = value_of(link)
    if isinstance(x, Bounded):
        bounds = ", ".join(f"{k}={shown(value_at_start(v))}" for k, v in x.bounds.items())
        return f"adamx.{_CLIPS.get(x.rule.__name__, x.rule.__name__)}({bounds})"
    if isinstance(x, ScaleBy):
        return f"adamx.scale_by({x.rule.name})"
    inner = getattr(link.held.get("inner_factory"), "__name__", "")  # of `inject_hyperparams`
    return public(link.module, link.made) + (f"({inner})" if inner else "")
