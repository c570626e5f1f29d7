# SPDX-License-Identifier: Apache-2.0
"""Of which whole arrays a device sees shards, where a function is mapped over devices.

Inside `pmap` and `shard_map` a shard looks like an array of its own. Three things depend on the
whole: which storage a leaf has, which bits round it, and what its norm is. They ask here. Whoever
cuts, `adamx.parallel`, says so for as long as it traces; compiled functions are kept apart by it.
"""

import contextlib
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
      shape: its shape as a whole.
      dim: the dimension that is cut in equal parts, the last ones padded; None if it stays whole.
    """

    shape: Shape
    dim: int | None


class Cuts(NamedTuple):
    """How the leaves of a tree are cut along a mapped axis."""

    axis_name: str
    leaves: tuple[tuple[str, Cut], ...]


@contextlib.contextmanager
def cutting(cuts: Cuts) -> Iterator[None]:
    """Within it, leaves of these names are shards of what `cuts` says."""
    with _CUTS(cuts):
        yield


def axis_name() -> str | None:
    """The axis along which leaves are cut; None outside of `cutting`."""
    return _CUTS.value.axis_name if _CUTS.value else None


def whole(name: str, shape: Shape) -> Shape:
    """The shape of the array of which the leaf `name` of this shape is a shard."""
    found = _find(name)
    return found.shape if found else shape


def dim(name: str) -> int | None:
    """The dimension along which the leaf `name` is cut; None where it is not."""
    found = _find(name)
    return found.dim if found else None


def masked(name: str, x: jax.Array) -> jax.Array:
    """A shard with zeros where it is padding, whatever stands there."""
    found = _find(name)
    if found is None or found.dim is None:
        return x
    size, whole_size = x.shape[found.dim], found.shape[found.dim]
    along = _CUTS.value.axis_name
    if size * lax.axis_size(along) == whole_size:
        return x
    position = lax.broadcasted_iota(jnp.int32, x.shape, found.dim) + size * lax.axis_index(along)
    return jnp.where(position < whole_size, x, jnp.zeros_like(x))


def first(name: str, shape: Shape) -> jax.Array | int:
    """The position, in row-major order of the whole array, of the first element of this shard."""
    found = _find(name)
    if found is None or found.dim is None:
        return 0
    step = shape[found.dim] * math.prod(found.shape[found.dim + 1 :])
    return lax.axis_index(_CUTS.value.axis_name).astype(jnp.uint32) * jnp.uint32(step % 2**32)


def _find(name: str) -> Cut | None:
    cuts = _CUTS.value
    if cuts is None:
        return None
    found = dict(cuts.leaves).get(name)
    if found is None:
        known = ", ".join(known for known, _ in cuts.leaves[:8])
        raise ValueError(
            f"{name}: parameters are in shards over {cuts.axis_name!r}, and this leaf is none of "
            f"them ({known} …): links that change the tree need whole arrays, as in how='jit'"
        )
    return found


_CUTS = jax.make_user_context(None)
