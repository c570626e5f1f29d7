# SPDX-License-Identifier: Apache-2.0
"""A mean of squares as the means of its rows and of its columns: rank one, n + m numbers for n m.

With the mean squares V of a matrix, R the means of its rows and C those of its columns,

    V ~ R C^T / mean(R)

which is V itself where V has rank one, and the closest to V in Kullback-Leibler divergence else
(Shazeer & Stern, arXiv 1804.04235). Of larger arrays two dimensions are factored, each slice along
the others by itself. The functions work on one array; `name` is that of a leaf that may be a shard.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from adamx.core import shards
from adamx.core.arithmetic import lerp, ratio, root, times
from adamx.core.block_means import Blocks, beside, blank, block_means

Axes = tuple[int, int]  # the two dimensions; row means are averaged over the second
Shape = tuple[int, ...]


def shapes(shape: Shape, axes: Axes) -> tuple[Shape, Shape]:
    """The shapes of the row means and of the column means."""
    first, second = axes
    return shape[:second] + shape[second + 1 :], shape[:first] + shape[first + 1 :]


def blanks(leaf: Any, whole: Shape, axes: Axes, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """Row and column means of zeros, for a leaf of the shape `whole`."""
    first, second = axes
    rows, columns = (blank(leaf, _without(whole, axis), dtype) for axis in (second, first))
    return jnp.squeeze(rows, second), jnp.squeeze(columns, first)


def averaged(
    square: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    axes: Axes,
    b: jax.Array,
    c: jax.Array,
    name: str = "",
) -> tuple[jax.Array, jax.Array]:
    """The row and column means, with weight `b`, after one more square of weight `c`."""
    first, second = axes
    whole = shards.whole(name, square.shape)
    now = (
        block_means(square, _without(whole, second), name),
        block_means(square, _without(whole, first), name),
    )
    rows = lerp(rows, jnp.squeeze(now[0], second), b, c)
    return rows, lerp(columns, jnp.squeeze(now[1], first), b, c)


def divided(
    x: jax.Array, rows: jax.Array, columns: jax.Array, axes: Axes, name: str = ""
) -> jax.Array:
    """`x` over the root of the mean squares that rows and columns stand for."""
    first, second = axes
    whole = shards.whole(name, x.shape)
    rows, columns = jnp.expand_dims(rows, second), jnp.expand_dims(columns, first)
    # Roots first: of the quotient of two squares nothing may be left.
    share = ratio(root(rows), root(jnp.mean(rows, first, keepdims=True)))
    share = beside(share, _without(whole, second), x, name)
    columns = beside(root(columns), _without(whole, first), x, name)
    return quotient(x, share * columns)


def quotient(x: jax.Array, root: jax.Array) -> jax.Array:
    """`x / root`; `x` itself where the root is next to nothing.

    By way of `1 / root`: the derivative by the root is then x times a product, not a product times
    x, which at x = 0 and roots of an epsilon of 1e-30 would be inf * 0.
    """
    least = 4 * jnp.finfo(root.dtype).tiny
    return times(1 / jnp.where(root < least, 1, root), x)


def held(x: jax.Array) -> jax.Array:
    """`x` with finite values held where squares can be added up; inf becomes NaN.

    The sum of 2^31 squares of 2^48 is finite in float32; in float64 the bound is 2^384.
    """
    if jnp.iscomplexobj(x):
        return lax.complex(held(x.real), held(x.imag))
    most = jnp.asarray(2.0 ** (jnp.finfo(x.dtype).maxexp * 3 // 8), x.dtype)
    return lax.clamp(-most, x, most) + 0 * x


def _without(whole: Shape, *axes: int) -> Blocks:
    return tuple(1 if i in axes else size for i, size in enumerate(whole))
