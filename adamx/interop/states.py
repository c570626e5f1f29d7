# SPDX-License-Identifier: Apache-2.0
"""Weights and moments, by the names of leaves, into the state of an optimizer and out of it.

A bridge knows the other library's names; this file knows ours. It finds the states of rules
wherever wrappers have put them, encodes in their storages, and gives to landings what their
half-precision parameters cannot hold.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import GetAttrKey, KeyPath

from adamx.core import dtypes, paths
from adamx.core.instances import instances
from adamx.core.rule import Kind, Rule
from adamx.interop.names import Problems
from adamx.interop.remainders import landed, placed
from adamx.landing import master_params
from adamx.moments.convert import decoded, encoded
from adamx.moments.described import Described
from adamx.moments.find import Side, is_moments, side, template
from adamx.optimizers.adam import rule as adam_rule
from adamx.transforms.weight_decay import CountState

Arrays = Mapping[str, Any]


class Moments(NamedTuple):
    """The moments of one leaf.

    Attributes:
      kinds: of each moment, by name, such as `{"mu": "signed", "nu": "squared"}`.
      count: how many steps were taken.
      arrays: the moments, by name, in the leaf's shape.
      hyper: the hyperparameters of their rule, as far as they are known.
    """

    kinds: Mapping[str, Kind]
    count: int
    arrays: Arrays
    hyper: Mapping[str, Any]


def write(
    opt: optax.GradientTransformation,
    params: Any,
    weights: Arrays,
    moments: Mapping[str, Moments],
    problems: Problems,
) -> tuple[Any, Any]:
    """The parameters and the state with which `opt` goes on.

    `params` is a tree of arrays, or of shapes with shardings. What is wrong is added to `problems`,
    and raised.
    """
    blank = paths.mapped(lambda name, leaf: _like(weights[name], leaf), params)
    state = opt.init(blank)
    nodes = list(_nodes(template(opt, blank)))
    for _, mark in nodes:
        _check(mark, moments, problems)
    used = {name for _, mark in nodes for name in _trained(_side(mark))}
    for name in moments:
        if name not in used:
            problems.add(f"{name}: `opt` keeps no moments of this leaf, the other side has some")
    problems.check()
    flat, form = jax.tree.flatten(state, is_leaf=is_moments)
    marks = jax.tree.leaves(template(opt, blank), is_leaf=is_moments)
    flat = [_node(m, moments, x) if is_moments(m) else x for m, x in zip(marks, flat, strict=True)]
    counts = [(path, _count(mark, moments)) for path, mark in nodes]
    return landed(blank, _counted(form.unflatten(flat), counts), weights)


def read(
    opt: optax.GradientTransformation, params: Any, state: Any
) -> tuple[dict[str, np.ndarray], dict[str, Moments]]:
    """All leaves in float32 or wider, and the moments of those that `opt` trains, by name."""
    whole = paths.flatten(master_params(state, params))[0]
    weights = {paths.name(path): np.asarray(leaf) for path, leaf in whole}
    found: dict[str, Moments] = {}
    marks = jax.tree.leaves(template(opt, params), is_leaf=is_moments)
    held, form = jax.tree.flatten(state, is_leaf=is_moments)
    if len(held) != len(marks):
        raise ValueError(f"`state` is not a state of `opt`: {form}")
    for mark, node in zip(marks, held, strict=True):
        if not is_moments(mark):
            continue
        here = _side(mark)
        count, rows = decoded(node, here, isinstance(mark, Described))
        rule = here.layout.rule
        for name, other in here.layout.counters(node).items():
            if int(other) != int(count):
                raise ValueError(
                    f"`state` counts {int(count)} steps, its `{name}` {int(other)}: one number is "
                    "carried over"
                )
        for name, arrays in zip(here.names, rows, strict=True):
            if arrays:
                kept = {k: np.asarray(x) for k, x in arrays.items()}
                hyper = rule.hyper if isinstance(mark, Described) else {}
                found[name] = Moments(rule.moments, int(count), kept, hyper)
    return weights, found


def trained(opt: optax.GradientTransformation, params: Any) -> set[str]:
    """The names of the leaves whose moments `opt` keeps."""
    nodes = _nodes(template(opt, params))
    return {name for _, mark in nodes for name in _trained(_side(mark))}


def waiting(state: Any) -> int:
    """How many gradients wait for their step in `optax.MultiSteps`, wherever it is."""
    found = instances(state, optax.MultiStepsState)
    return max((int(x.mini_step) for x in found), default=0)


def _like(x: Any, leaf: Any) -> jax.Array:
    """An array in the dtype of a leaf, and where that lies."""
    return placed(dtypes.cast(_wide(x), dtypes.of(leaf)), leaf)


def _nodes(marked: Any) -> Iterator[tuple[KeyPath, Any]]:
    """The states of rules in a template, with their paths."""
    for path, x in jax.tree_util.tree_flatten_with_path(marked, is_leaf=is_moments)[0]:
        if is_moments(x):
            yield path, x


def _side(mark: Any) -> Side:
    """How moments are kept; a state of Optax's own has no rule, but Adam's fields."""
    return side(mark, _rule(mark))


def _rule(mark: Any) -> Rule:
    if isinstance(mark, Described):
        return mark.rule
    if isinstance(mark, optax.ScaleByAdamState):
        return adam_rule()
    raise ValueError(f"{type(mark).__name__}: of Optax's own states only Adam's can be filled")


def _trained(here: Side) -> list[str]:
    storages = zip(here.names, here.storages, strict=True)
    return [name for name, storage in storages if storage is not None]


def _check(mark: Any, moments: Mapping[str, Moments], problems: Problems) -> None:
    here = _side(mark)
    wanted, counts = here.layout.rule.moments, {}
    for name in _trained(here):
        if name not in moments:
            problems.add(f"{name}: `opt` trains this leaf, the other side has no moments of it")
            continue
        counts.setdefault(moments[name].count, []).append(name)
        if dict(moments[name].kinds) != dict(wanted):
            theirs = ", ".join(f"{k} ({kind})" for k, kind in moments[name].kinds.items())
            ours = ", ".join(f"{k} ({kind})" for k, kind in wanted.items())
            problems.add(f"{name}: the other side remembers {theirs}, `opt` {ours}")
    if len(counts) > 1:
        said = "; ".join(f"{count} for {paths.few(x)}" for count, x in sorted(counts.items()))
        hint = ": give the first a group of their own (`optax.partition`)" if 0 in counts else ""
        problems.add(f"the numbers of steps differ within a group: {said}{hint}")


def _count(mark: Any, moments: Mapping[str, Moments]) -> int:
    return max((moments[name].count for name in _trained(_side(mark))), default=0)


def _node(mark: Any, moments: Mapping[str, Moments], blank: Any) -> Any:
    here = _side(mark)
    rows: list[dict] = [
        {} if storage is None else {k: _wide(x) for k, x in moments[name].arrays.items()}
        for name, storage in zip(here.names, here.storages, strict=True)
    ]
    count = jnp.asarray(_count(mark, moments), jnp.int32)
    made = encoded(count, rows, here, blank)
    return jax.tree.map(placed, made, blank)


def _wide(x: Any) -> jax.Array:
    """A copy in at least float32: the other side may go on changing its own memory."""
    return dtypes.widen(jnp.array(np.asarray(x)))


def _counted(state: Any, counts: list[tuple[KeyPath, int]], above: KeyPath = ()) -> Any:
    """`state` with the counts of schedules set to those of the nearest moments.

    Other counts, such as that of a moving average in the same chain, belong to arrays that are new.
    """

    def one(path: KeyPath, x: Any) -> Any:
        if not isinstance(x, _SCHEDULES) or not counts:
            return x
        count = max(counts, key=lambda known: _shared(above + path, known[0]))[1]
        kept: Any = x._replace(count=jnp.full_like(x.count, count))
        if not isinstance(x, _INJECTED):
            return kept
        inner = (*above, *path, GetAttrKey("inner_state"))
        kept = kept._replace(inner_state=_counted(x.inner_state, counts, inner))
        if isinstance(x, optax.InjectHyperparamsState):
            return kept
        made = jax.tree.map(lambda c: jnp.full_like(c, count), x.hyperparams_states)
        return kept._replace(hyperparams_states=made)

    return jax.tree_util.tree_map_with_path(one, state, is_leaf=lambda x: isinstance(x, _SCHEDULES))


# Where rates and decays that are schedules count; those injected have nothing but a count each.
_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)
_SCHEDULES = (optax.ScaleByScheduleState, CountState, *_INJECTED)


def _shared(a: KeyPath, b: KeyPath) -> int:
    """How many steps two paths go together."""
    pairs = [x == y for x, y in zip(a, b, strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)
