# SPDX-License-Identifier: Apache-2.0
"""The nodes of any transformation's state that have moments, and the kinds of these."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from adamx.core import paths
from adamx.core.links import links
from adamx.core.rule import Kind, Rule
from adamx.moments.described import Described, described, describing
from adamx.moments.find import is_moments
from adamx.moments.kinds import kinds_of
from adamx.storage import Choice


class Node(NamedTuple):
    """A node of the state of some transformation, or another leaf of it, which has no `kinds`."""

    shapes: Any
    place: tuple[Any, ...]
    kinds: dict[str, Kind]

    @property
    def count(self) -> str | None:
        """The name of its counter, if the node has nothing but that and moments."""
        rest = set(getattr(self.shapes, "_fields", ())) - set(self.kinds)
        return rest.pop() if rest in ({"count"}, {"t"}) else None

    @property
    def rule(self) -> Rule:
        """What tools that decode moments need to know of it."""
        name, kind = "store", type(self.shapes)
        return Rule(name, kind, self.kinds, {}, _nothing, _unknown, self.count or "count")

    def described(self, held: Any, choice: Choice) -> Any:
        """The stored node, marked where that is asked for and tools know its class."""
        known = self.kinds and self.count and is_moments(self.shapes)
        return described(held, self.rule, choice) if known else held


Nodes = tuple[list[Node], Any]  # and the structure of the state that they are in


def nodes(opt: Any, like: Any, told: Mapping[str, Kind | None]) -> Nodes:
    """The nodes with moments and all other leaves of a state of `opt`, and their structure.

    `like` has the parameters' shapes; `told` has kinds by patterns of a field's path.
    """
    with describing():
        marked = jax.eval_shape(opt.init, like)
    known = links(opt)

    def of(path: Any, x: Any) -> Node:
        place = tuple(_word(key) for key in path)
        if not isinstance(x, Described):
            return Node(x, place, kinds_of(x, place, known, told))
        is_wide = not any(leaf.dtype.itemsize < 4 for leaf in jax.tree.leaves(x.state))
        return Node(x.state, place, dict(x.rule.moments) if is_wide else {})

    flat, treedef = jax.tree_util.tree_flatten_with_path(
        marked,
        is_leaf=lambda path, x: isinstance(x, Described) or bool(of(path, x).kinds),
        is_leaf_takes_path=True,
    )
    found = [of(path, x) for path, x in flat]
    _check_used(marked, told)
    return found, treedef


def _check_used(state: Any, told: Mapping[str, Kind | None]) -> None:
    """Raises where a pattern of `kinds` matches no field."""
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    places = {path[:i] for path, _ in flat for i in range(1, len(path) + 1)}
    names = ["/".join(str(_word(key)) for key in place) for place in places]
    for pattern in told:
        if names and not any(paths.matches(pattern, name) for name in names):
            near = paths.nearest(pattern, sorted(names))
            raise ValueError(f"`kinds`: no field matches {pattern!r}; the nearest are {near}")


def _word(key: Any) -> Any:
    """One step of a path: a name, a key or a number."""
    return next((getattr(key, k) for k in ("name", "key", "idx") if hasattr(key, k)), str(key))


def _nothing(t: Any) -> dict[str, Any]:
    return {}


def _unknown(*args: Any, **scalars: Any) -> Any:
    raise TypeError("this rule says how moments are kept, not how they are computed")
