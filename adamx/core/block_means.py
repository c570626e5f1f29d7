# SPDX-License-Identifier: Apache-2.0
"""Means over blocks of a leaf, whole on every device however the leaf itself is cut.

A leaf's blocks are given by their number along each dimension: `(1, 1)` is the whole of a matrix,
`(n, 1)` its n rows, `(1, 4)` four groups of neighbouring columns. The means have that shape. They
are small beside the leaf, so each device holds all of them: where the leaf is cut along a dimension
that is averaged, a sum over devices completes them, else they are gathered.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from adamx.core import shards
from adamx.core.explicit_axes import replicated
from adamx.core.norms import mapped_axes

Blocks = tuple[int, ...]


def check(name: str, shape: tuple[int, ...], blocks: Blocks) -> None:
    """Raises where a dimension does not fall into that many equal blocks."""
    for axis, (size, count) in enumerate(zip(shape, blocks, strict=True)):
        if count < 1 or size % count:
            raise ValueError(
                f"{name}: dimension {axis} of {shape} does not fall into {count} equal blocks"
            )


def block_means(x: jax.Array, blocks: Blocks, name: str = "") -> jax.Array:
    """The mean of each block of the leaf `name`, of which `x` may be a shard.

    Example:
      >>> print(block_means(jnp.array([[1.0, 2.0, 3.0, 6.0]]), (1, 2)))
      [[1.5 4.5]]
    """
    whole, cut = shards.whole(name, x.shape), shards.dim(name)
    x = shards.masked(name, x)
    over = tuple(axis for axis, count in enumerate(blocks) if count == 1)
    total = jnp.sum(x, over, keepdims=True)
    if cut in over:
        total = mapped_axes.total(total, mapped_axes.axes(None))
    elif cut is not None:
        total = lax.slice_in_dim(_gathered(total, cut), 0, whole[cut], axis=cut)
    mean = total / max(1, math.prod(whole[axis] for axis in over))
    for axis, count in enumerate(blocks):
        if count not in (1, whole[axis]):
            split = (*mean.shape[:axis], count, -1, *mean.shape[axis + 1 :])
            mean = replicated(lambda x, s=split, axis=axis: jnp.mean(x.reshape(s), axis + 1), mean)
    return mean


def blank(leaf: Any, blocks: Blocks, dtype: DTypeLike) -> jax.Array:
    """Means of zeros; on a mesh of explicit axes they lie as `block_means` of the leaf do."""
    if shards.axis_name():
        return jnp.zeros(blocks, dtype)
    return jnp.zeros_like(jax.eval_shape(lambda x: block_means(x, blocks), leaf), dtype=dtype)


def beside(means: jax.Array, blocks: Blocks, x: jax.Array, name: str = "") -> jax.Array:
    """The means beside the elements of `x`, a leaf or a shard of it: each dimension has the size
    of that of `x`, or 1.

    Example:
      >>> print(beside(jnp.array([[1.5, 4.5]]), (1, 2), jnp.ones((3, 4))))
      [[1.5 1.5 4.5 4.5]]
    """
    whole, cut = shards.whole(name, x.shape), shards.dim(name)
    for axis, count in enumerate(blocks):
        if count not in (1, whole[axis]):
            means = jnp.repeat(means, whole[axis] // count, axis)
    if cut is None or means.shape[cut] == 1:
        return means
    size = x.shape[cut]
    missing = size * lax.axis_size(_axis()) - whole[cut]
    means = jnp.pad(means, [(0, missing * (i == cut)) for i in range(means.ndim)])
    return lax.dynamic_slice_in_dim(means, lax.axis_index(_axis()) * size, size, cut)


def _gathered(x: jax.Array, cut: int) -> jax.Array:
    tracked = _axis() in mapped_axes.varying(lax.axis_index(_axis()))
    to = "invarying" if tracked else "varying"
    return lax.all_gather(x, _axis(), axis=cut, tiled=True, to=to)


def _axis() -> str:
    axis = shards.axis_name()
    assert axis is not None  # a leaf is cut
    return axis
