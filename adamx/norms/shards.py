# SPDX-License-Identifier: Apache-2.0
"""What `axis_name` means: the mapped axes along which an array that we see is only a shard.

It is the name of an axis, or a tuple or list of names. Under `shard_map` with `check_vma=True` JAX
knows which arrays are the same on all devices of an axis, and those count once. `pmap`, `vmap` and
`check_vma=False` do not track this: there every array has to be a shard along every named axis.
"""

import math
from collections.abc import Sequence

import jax
from jax import lax

AxisName = str | Sequence[str]


def names(axis_name: AxisName | None) -> tuple[str, ...]:
    """The axis names as a tuple, empty for None."""
    if axis_name is None:
        return ()
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)


def pieces(x: jax.Array, axis_name: AxisName | None) -> int:
    """Of how many shards like `x` the whole array is made."""
    cut = set(names(axis_name)) - set(_replicated(x, axis_name))
    return math.prod(lax.axis_size(name) for name in cut)


def copies(x: jax.Array, axis_name: AxisName | None) -> int:
    """On how many devices `x` is known to be the same, so that `total` counts it as often."""
    return math.prod(lax.axis_size(name) for name in _replicated(x, axis_name))


def total(x: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """The sum over all devices, copies included."""
    copied = _replicated(x, axis_name)
    x = lax.pcast(x, copied, to="varying") if copied else x
    return lax.psum(x, names(axis_name))


def _replicated(x: jax.Array, axis_name: AxisName | None) -> tuple[str, ...]:
    """The named axes along which JAX knows `x` to be the same on every device."""
    tracked = [name for name in names(axis_name) if name in _varying(lax.axis_index(name))]
    return tuple(name for name in tracked if name not in _varying(x))


def _varying(x: jax.Array) -> frozenset[str]:
    """The axes along which JAX knows `x` to vary; none where it does not track that."""
    return getattr(getattr(jax.typeof(x), "manual_axis_type", None), "varying", frozenset())
