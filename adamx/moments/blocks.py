# SPDX-License-Identifier: Apache-2.0
"""The blocks of each leaf that share a mean square, by its path and its shape.

Heads of queries and keys, which have to be told; tokens of embeddings; neurons of other matrices;
any other leaf is one block.
"""

from collections.abc import Mapping
from typing import Any

from adamx.core import paths
from adamx.core.block_means import Blocks, check
from adamx.core.values import value

Heads = Mapping[str, int | tuple[int, int]]
AxisOf = Mapping[str, int | None]
Shape = tuple[int, ...]


def partition(heads: Heads | None = None, blocks: AxisOf | None = None) -> "Partition":
    """The partition of these arguments.

    Args:
      heads: from path patterns to the number of heads, or to that and the dimension along which
        they lie.
      blocks: from path patterns to the dimension along which each index is a block; None for one.

    Example:
      >>> parts = partition({"*/query": 12})
      >>> parts.of("0/query", (768, 768)), parts.of("0/query", (768, 12, 64))
      ((1, 12), (1, 12, 1))
      >>> parts.of("embedding", (50257, 768)), parts.of("out", (768, 64)), parts.of("bias", (64,))
      ((50257, 1), (1, 64), (1,))
    """
    for argument, given in (("heads", heads), ("blocks", blocks)):
        if not isinstance(given, Mapping | None):
            raise TypeError(f"`{argument}` must be a table of path patterns, got {given!r}")
    rows = tuple((k, v if isinstance(v, tuple) else (v, None)) for k, v in (heads or {}).items())
    for pattern, (count, _) in rows:
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"`heads` must be a number of at least 1, got {count!r} ({pattern})")
    for pattern, axis in (blocks or {}).items():
        if not isinstance(axis, int | None):
            raise TypeError(f"`blocks` must be a dimension or None, got {axis!r} ({pattern})")
    return Partition(rows, tuple((blocks or {}).items()))


@value
class Partition:
    """Blocks by path and shape."""

    heads: tuple[tuple[str, tuple[int, int | None]], ...]
    rows: tuple[tuple[str, int | None], ...]

    def check_used(self, params: Any) -> None:
        """Raises where a pattern matches no leaf."""
        paths.check_used("`heads`", [pattern for pattern, _ in self.heads], params)
        paths.check_used("`blocks`", [pattern for pattern, _ in self.rows], params)

    def of(self, name: str, shape: Shape) -> Blocks:
        """The number of blocks of a leaf along each of its dimensions."""
        for pattern, (count, axis) in self.heads:
            if paths.matches(pattern, name):
                axis = (-1 if len(shape) < 3 else -2) if axis is None else axis
                found = _along(name, "heads", axis, shape, count)
                check(name, shape, found)
                return found
        for pattern, axis in self.rows:
            if paths.matches(pattern, name):
                return _along(name, "blocks", axis, shape)
        if len(shape) < 2:
            return (1,) * len(shape)
        return _along(name, "blocks", 0 if paths.matches("*embed*", name) else -1, shape)


def _along(
    name: str, argument: str, axis: int | None, shape: Shape, count: int | None = None
) -> Blocks:
    """So many blocks along one dimension, by default as many as it is long."""
    if axis is None or not shape:
        return (1,) * len(shape)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name}: `{argument}` names dimension {axis} of {shape}")
    axis %= len(shape)
    return tuple(
        1 if i != axis else size if count is None else count for i, size in enumerate(shape)
    )
