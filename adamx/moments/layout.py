# SPDX-License-Identifier: Apache-2.0
"""Where a rule's state keeps which arrays: Optax's own class, unless some moments share bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamx.core import paths
from adamx.core.instances import is_hole
from adamx.core.rule import Rule
from adamx.storage import Storage, recognised


class PackedState(NamedTuple):
    """The state of a rule whose moments share bytes, where Optax's own class has no place for it.

    Attributes:
      count: how many steps were taken.
      arrays: by name, trees like the parameters: `"packed"` for moments that share a byte, a
        moment's own name for others, with `optax.MaskedNode` for leaves that have none of it.
    """

    count: jax.Array
    arrays: dict[str, Any]

    @property
    def mu(self) -> Any:
        """For tools that look for it: the arrays that hold the means, as codes."""
        return _holding(self.arrays, "mu")

    @property
    def nu(self) -> Any:
        """For tools that look for it: the arrays that hold the mean squares, as codes."""
        return _holding(self.arrays, "nu")


def _holding(arrays: dict[str, Any], name: str) -> Any:
    """A tree like the parameters, of the arrays that hold a moment; an error if none does."""
    trees = [arrays[k] for k in (name, "packed") if k in arrays]
    if not trees:
        raise AttributeError(f"this PackedState has no {name!r}, it has {', '.join(arrays)}")

    def first(*held: Any) -> Any:
        return next((x for x in held if not is_hole(x)), held[0])

    return jax.tree.map(first, *trees, is_leaf=is_hole)


class Layout(NamedTuple):
    """The fields of a state, and whether they are the moments' own.

    Attributes:
      rule: whose moments they are.
      fields: the names of the arrays.
      is_plain: whether the state is of Optax's class.
      formats: the storages, as errors call them.
    """

    rule: Rule
    fields: tuple[str, ...]
    is_plain: bool
    formats: str

    @classmethod
    def of(cls, rule: Rule, storages: Sequence[Storage]) -> "Layout":
        """The layout for leaves of these storages."""
        fields = [storage.fields(rule.moments) for storage in storages]
        is_plain = all(names == tuple(rule.moments) for names in fields)
        every = tuple(rule.moments) if is_plain else tuple(dict.fromkeys(sum(fields, ())))
        formats = " / ".join(dict.fromkeys(repr(storage.name) for storage in storages))
        return cls(rule, every, is_plain, formats)

    def state(
        self,
        count: ArrayLike,
        stored: list[dict],
        treedef: Any,
        counters: Mapping[str, ArrayLike] | None = None,
    ) -> Any:
        """The state whose leaves hold `stored`; further counters start at `count`."""
        hole = optax.MaskedNode()
        trees = {
            k: treedef.unflatten([arrays.get(k, hole) for arrays in stored]) for k in self.fields
        }
        if self.is_plain:
            counters = counters or {k: jnp.array(count, copy=True) for k in self.rule.counters}
            return self.rule.state(**{self.rule.count: count}, **counters, **trees)
        return PackedState(jnp.asarray(count), trees)

    def stored(self, state: Any, like: Any, treedef: Any) -> tuple[jax.Array, list[dict]]:
        """The count and the arrays leaf by leaf, or an error that says what differs."""
        wanted = self.rule.state if self.is_plain else PackedState
        if type(state) is not wanted:
            raise ValueError(f"{self.rule.name}: {self._difference(state, wanted)}")
        trees = state._asdict() if self.is_plain else state.arrays
        columns = {}
        for field in self.fields:
            try:
                columns[field] = treedef.flatten_up_to(trees[field])
            except (ValueError, TypeError, KeyError) as e:
                raise ValueError(self._mismatch(field, trees.get(field), like)) from e
            if paths.is_one_for_many(like, trees[field]):
                raise ValueError(self._mismatch(field, trees[field], like))
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        held = [{k: a for k, a in row.items() if not is_hole(a)} for row in rows]
        return (getattr(state, self.rule.count) if self.is_plain else state.count), held

    def counters(self, state: Any) -> dict[str, jax.Array]:
        """The further counters in a state. Packed moments leave them no place: they are `count`."""
        if not self.is_plain:
            return {k: jnp.array(state.count, copy=True) for k in self.rule.counters}
        return {k: getattr(state, k) for k in self.rule.counters}

    def _mismatch(self, field: str, tree: Any, like: Any) -> str:
        what = paths.difference(tree, like, f"the state's `{field}`", "the gradient")
        return f"{self.rule.name}: {what}"

    def _difference(self, state: Any, wanted: Any) -> str:
        if {type(state), wanted} == {self.rule.state, PackedState}:
            return (
                f"the state is stored as {_format(state, self.rule)}, the recipe's storage is "
                f"{self.formats}: `adamx.convert(state, opt_from, opt_to)` makes one of the other"
            )
        return (
            f"the state is a {type(state).__name__}, expected {wanted.__name__}: it was made by "
            "another recipe, or restored without a target"
        )


def _format(state: Any, rule: Rule) -> str:
    if isinstance(state, PackedState):
        return "packed bytes"
    columns = [jax.tree.leaves(getattr(state, k)) for k in rule.moments]
    first = {k: column[0] for k, column in zip(rule.moments, columns, strict=True) if column}
    found = recognised(first, rule.moments, jnp.dtype(jnp.float32)) if first else ""
    return repr(found) if found else "something else"
