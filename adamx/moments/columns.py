# SPDX-License-Identifier: Apache-2.0
"""The moments of a node, leaf by leaf, and the node that keeps them, stored or as it was."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from adamx.core import dtypes, paths, shards
from adamx.core.instances import is_hole
from adamx.moments.layout import Layout, PackedState
from adamx.moments.nodes import Node
from adamx.storage import Choice, Storage
from adamx.storage.compact import Compact


class Column(NamedTuple):
    """The leaves of a node, each with its storage.

    Attributes:
      node: the node.
      treedef: the structure of each of its moments.
      names: of the leaves.
      leaves: the parameters, or gradients, that the leaves belong to; None where there is none.
      storages: of the leaves; None for those that have no parameter's shape and stay as they are.
      layout: which class and fields keep the arrays.
    """

    node: Node
    treedef: Any
    names: list[str]
    leaves: list[Any]
    storages: list[Any]
    layout: Layout

    @classmethod
    def of(cls, node: Node, like: Any, choice: Choice) -> "Column":
        known = dict(paths.flatten(like)[0])
        flat, treedef = paths.flatten(_get(node.shapes, next(iter(node.kinds))), is_leaf=is_hole)
        rows = zip(*(treedef.flatten_up_to(_get(node.shapes, k)) for k in node.kinds), strict=True)
        names, leaves, storages = [], [], []
        for (path, _), row in zip(flat, rows, strict=True):
            leaf, name = known.get(path), paths.name(path)
            shape = None if leaf is None else jnp.shape(leaf)
            alike = shape is not None and all(_shape(x) == shape for x in row)
            names.append(name)
            leaves.append(leaf)
            storages.append(
                _storage(node, name, shape, choice) if shape is not None and alike else None
            )
        among = [storage for storage in storages if storage is not None]
        if node.count is not None and choice.among:
            among = [*choice.among]
        return cls(node, treedef, names, leaves, storages, Layout.of(node.rule, among))

    def rows(self, wide: Any) -> list[dict[str, Any]]:
        """The moments of each leaf, in floating point."""
        return self._rows(wide, tuple(self.node.kinds))

    def stored(self, held: Any) -> list[dict[str, Any]]:
        """The stored arrays of each leaf, checked."""
        if isinstance(held, PackedState) == self.layout.is_plain:
            raise ValueError(
                f"{self._called}: the state is a {type(held).__name__}, storage "
                f"{self.layout.formats} keeps a {type(self._blank).__name__}: `adamx.convert` "
                "makes one of the other"
            )
        found = self._rows(held.arrays if isinstance(held, PackedState) else held, self.kept)
        for name, leaf, storage, arrays in zip(
            self.names, self.leaves, self.storages, found, strict=True
        ):
            if storage is None:
                continue
            complaint = storage.complaint(arrays, self.node.kinds, dtypes.of(leaf))
            if complaint:
                raise TypeError(f"{name}: {complaint} ({self._called})")
        return found

    def closed(self, wide: Any, found: list[dict[str, Any]]) -> Any:
        """The node that keeps these arrays."""
        if self.layout.is_plain:
            return _replaced(wide, self._trees(found, self.kept))
        return PackedState(_get(wide, self.node.count), self._trees(found, self.kept))

    def opened(self, held: Any, found: list[dict[str, Any]]) -> Any:
        """The node that its transformation knows, with these moments."""
        trees = self._trees(found, tuple(self.node.kinds))
        if self.layout.is_plain:
            return _replaced(held, trees)
        return type(self.node.shapes)(**{str(self.node.count): held.count}, **trees)

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the stored arrays."""
        return tuple(self.node.kinds) if self.layout.is_plain else self.layout.fields

    @property
    def _blank(self) -> Any:
        return self.node.shapes if self.layout.is_plain else PackedState(jnp.zeros([]), {})

    @property
    def _called(self) -> str:
        return "/".join(map(str, self.node.place)) or type(self.node.shapes).__name__

    def _rows(self, node: Any, fields: tuple[str, ...]) -> list[dict[str, Any]]:
        columns = [self.treedef.flatten_up_to(_get(node, k)) for k in fields]
        rows = [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]
        pairs = zip(rows, self.storages, strict=True)
        return [
            row if storage is None else {k: x for k, x in row.items() if not is_hole(x)}
            for row, storage in pairs
        ]

    def _trees(self, rows: list[dict[str, Any]], fields: tuple[str, ...]) -> dict[str, Any]:
        hole = optax.MaskedNode()
        return {k: self.treedef.unflatten([row.get(k, hole) for row in rows]) for k in fields}


def _storage(node: Node, name: str, shape: tuple[int, ...], choice: Choice) -> Storage:
    """The storage of one leaf; where no `PackedState` has room for the node, each moment has its
    own byte."""
    storage = choice.of(name, shards.whole(name, shape))
    if node.count is None and isinstance(storage, Compact):
        storage = dataclasses.replace(storage, packs=False)
    if node.count is None and storage.fields(node.kinds) != tuple(node.kinds):
        raise ValueError(
            f"{name}: storage {storage.name!r} has no array for each of {', '.join(node.kinds)}, "
            f"as a {type(node.shapes).__name__} needs"
        )
    return storage


def _get(node: Any, field: Any) -> Any:
    return node[field] if isinstance(node, dict) else getattr(node, field)


def _replaced(node: Any, trees: dict[str, Any]) -> Any:
    return {**node, **trees} if isinstance(node, dict) else node._replace(**trees)


def _shape(x: Any) -> Any:
    return None if is_hole(x) else tuple(x.shape)
