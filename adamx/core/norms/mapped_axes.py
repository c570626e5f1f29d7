# SPDX-License-Identifier: Apache-2.0
"""The meaning of `axis_name`: the mapped axes along which an array is only a shard.

It is the name of an axis, or a tuple or list of names. Under `shard_map` with `check_vma=True` JAX
knows which arrays are the same on all devices of an axis, and those count once. `pmap`, `vmap` and
`check_vma=False` do not track this: there every array has to be a shard along every named axis.

Inside `shards.cutting`, None means the axis along which leaves are cut; scalars are whole along it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.core import shards

AxisName = str | Sequence[str]


class Axes(NamedTuple):
    """Mapped axes, and whether scalars are whole along them."""

    names: tuple[str, ...] = ()
    whole_scalars: bool = False


def axes(axis_name: AxisName | None) -> Axes:
    """The named axes; for None the axis along which leaves are cut, if any."""
    cut, named = shards.axis_name(), names(axis_name)
    if named is None:
        return Axes((cut,), whole_scalars=True) if cut else Axes()
    return Axes(named, whole_scalars=cut in named)


def names(axis_name: AxisName | None) -> tuple[str, ...] | None:
    """`axis_name` as a tuple, which is hashable; None stays None."""
    if axis_name is None:
        return None
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)


def size(name: str, x: jax.Array, axis_name: AxisName | None) -> int:
    """The number of elements of the whole leaf `name`, where `x` is a shard of it."""
    if axis_name is None:
        return math.prod(shards.whole(name, jnp.shape(x)))
    return jnp.size(x) * pieces(x, axis_name)


def pieces(x: jax.Array, axis_name: AxisName | None) -> int:
    """The number of shards like `x` that make up the whole array."""
    along = axes(axis_name)
    cut = set(along.names) - set(_replicated(x, along))
    return math.prod(lax.axis_size(name) for name in cut)


def copies(x: jax.Array, along: Axes) -> int:
    """The number of devices known to hold the same `x`; `total` counts it that often."""
    return math.prod(lax.axis_size(name) for name in _replicated(x, along))


def total(x: jax.Array, along: Axes) -> jax.Array:
    """The sum over all devices, copies included."""
    copied = _unvarying(x, along)
    x = lax.pcast(x, copied, to="varying") if copied else x
    return lax.psum(x, along.names)


def _replicated(x: jax.Array, along: Axes) -> tuple[str, ...]:
    """The named axes along which `x` is known to be the same on every device."""
    if along.whole_scalars and jnp.ndim(x) == 0:
        return along.names
    return _unvarying(x, along)


def _unvarying(x: jax.Array, along: Axes) -> tuple[str, ...]:
    """The named axes along which JAX knows `x` to be the same on every device."""
    tracked = [name for name in along.names if name in varying(lax.axis_index(name))]
    return tuple(name for name in tracked if name not in varying(x))


def varying(x: jax.Array) -> frozenset[str]:
    """The axes along which JAX knows `x` to vary; none where it does not track that."""
    return getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", frozenset())
