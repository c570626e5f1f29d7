# SPDX-License-Identifier: Apache-2.0
"""The whole arrays behind the shards that a function mapped over devices sees.

Inside `pmap` and `shard_map` a shard looks like a whole array. Three things depend on the whole: a
leaf's storage, its rounding bits and its norm. They look it up here. `adamx.parallel`, which cuts
the arrays, sets the cuts while it traces; JAX compiles a function anew for different cuts.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Shape = tuple[int, ...]


class Cut(NamedTuple):
    """How one array is cut.

    Attributes:
      shape: the shape of the whole array.
      dim: the dimension cut into equal parts, the last ones padded; None if it is not cut.
    """

    shape: Shape
    dim: int | None


@dataclasses.dataclass(frozen=True)
class Cuts:
    """How the leaves of a tree are cut along a mapped axis."""

    axis_name: str
    leaves: tuple[tuple[str, Cut], ...]

    @functools.cached_property
    def by_name(self) -> dict[str, Cut]:
        """The cut of each leaf."""
        return dict(self.leaves)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.axis_name, self.leaves))

    def __hash__(self) -> int:  # used once per leaf, in trees of a thousand leaves
        return self._hash


class Part(NamedTuple):
    """Which part of a whole array a leaf is.

    Attributes:
      whole: the shape of the whole array; None if the leaf is whole.
      first: the row-major position of the leaf's first element in the whole array.
    """

    whole: Shape | None = None
    first: jax.Array | int = 0


@contextlib.contextmanager
def cutting(cuts: Cuts) -> Iterator[None]:
    """A context in which leaves are shards as described by `cuts`."""
    with _CUTS(cuts):
        yield


def axis_name() -> str | None:
    """The mapped axis along which leaves are cut; None outside of `cutting`."""
    return _CUTS.value.axis_name if _CUTS.value else None


def whole(name: str, shape: Shape) -> Shape:
    """The shape of the whole array behind the leaf `name` of this shape."""
    found = _find(name)
    return found.shape if found else shape


def dim(name: str) -> int | None:
    """The dimension along which the leaf `name` is cut; None if it is not."""
    found = _find(name)
    return found.dim if found else None


def masked(name: str, x: jax.Array) -> jax.Array:
    """The shard `x` with its padding set to zero."""
    found = _find(name)
    if found is None or found.dim is None:
        return x
    size, whole_size = x.shape[found.dim], found.shape[found.dim]
    along = _CUTS.value.axis_name
    if size * lax.axis_size(along) == whole_size:
        return x
    position = lax.broadcasted_iota(jnp.int32, x.shape, found.dim) + size * lax.axis_index(along)
    return jnp.where(position < whole_size, x, jnp.zeros_like(x))


def part(name: str, shape: Shape) -> Part:
    """Which part of a whole array the leaf `name` of this shape is."""
    found = _find(name)
    if found is None or found.dim is None:
        return Part()
    step = shape[found.dim] * math.prod(found.shape[found.dim + 1 :])
    first = lax.axis_index(_CUTS.value.axis_name).astype(jnp.uint32) * jnp.uint32(step % 2**32)
    return Part(found.shape, first)


def _find(name: str) -> Cut | None:
    """How a leaf is cut; an empty name stands for an array that is whole."""
    cuts = _CUTS.value
    if cuts is None or not name:
        return None
    found = cuts.by_name.get(name)
    if found is None:
        known = ", ".join(known for known, _ in cuts.leaves[:8])
        raise ValueError(
            f"{name}: parameters are shards over {cuts.axis_name!r}, and this leaf is not one of "
            f"them ({known} …): links that change the tree need whole arrays, use how='jit'"
        )
    return found


_CUTS = jax.make_user_context(None)
