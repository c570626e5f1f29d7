# SPDX-License-Identifier: Apache-2.0
"""The moments in a state, by what `init` says of it: their rule, and how they are stored."""

from typing import Any, NamedTuple

import jax
import optax
import optax.contrib

from adamx.core import paths
from adamx.core.instances import is_hole
from adamx.core.rule import Rule
from adamx.moments.described import Described, describing
from adamx.moments.layout import Layout, PackedState
from adamx.storage import Storage, choose


def template(opt: optax.GradientTransformation, params: Any) -> Any:
    """The shapes of a state of `opt`, in which the states of our rules are marked."""
    with describing():
        return jax.eval_shape(opt.init, params)


class Side(NamedTuple):
    """How one optimizer keeps the moments of one rule.

    Attributes:
      layout: where the arrays are.
      storages: of each leaf.
      treedef: of the leaves, holes included.
      names: of the leaves.
    """

    layout: Layout
    storages: list[Storage]
    treedef: Any
    names: list[str]


def side(mark: Any, rule: Rule) -> Side:
    """What `mark`, a marked state or one of Optax's, says about its optimizer."""
    choice = mark.choice if isinstance(mark, Described) else choose(None)
    rule = mark.rule if isinstance(mark, Described) else rule
    state = mark.state if isinstance(mark, Described) else mark
    names, rows, treedef = leaves(state)
    shapes = [next((x.shape for x in row), None) for row in rows]
    storages: list[Any] = [
        None if shape is None else choice.of(name, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    known = choice.among or [storage for storage in storages if storage is not None]
    return Side(Layout.of(rule, known), storages, treedef, names)


def leaves(state: Any) -> tuple[list[str], list[list[Any]], Any]:
    """For each leaf its name and the arrays that are there, and the treedef, holes included."""
    trees = state.arrays if isinstance(state, PackedState) else state._asdict()
    trees = [tree for k, tree in trees.items() if k not in CLOCKS]
    flat, treedef = paths.flatten(trees[0], is_leaf=is_hole)
    rows = zip(*(treedef.flatten_up_to(tree) for tree in trees), strict=True)
    held = [[x for x in row if not is_hole(x)] for row in rows]
    return [paths.name(path) for path, _ in flat], held, treedef


def is_moments(x: Any) -> bool:
    """Whether a node of a state, or of a template, holds moments of ours or of Optax's."""
    return isinstance(x, (Described, PackedState, *_OPTAX))


CLOCKS = ("count", "t", "count_m2")  # the counters in Optax's states of moments
# Optax keeps the class of this state to itself. Shapes alone, as an array would start the backend.
RmsState: Any = type(jax.eval_shape(optax.scale_by_rms(bias_correction=True).init, {}))

_OPTAX = (
    optax.ScaleByAdamState,
    optax.ScaleByAmsgradState,
    optax.ScaleByBeliefState,
    optax.ScaleByLionState,
    optax.ScaleByAdanState,
    optax.contrib.ScaleByAdemamixState,
    optax.contrib.ScaleBySimplifiedAdEMAMixState,
    RmsState,
)
