# SPDX-License-Identifier: Apache-2.0
"""Euclidean norms of arrays, trees and their shards that neither overflow nor underflow.

Norms are float32, float64 for float64 input; both parts of complex numbers count. Their gradient at
zero is zero. `mapped_axes` explains `axis_name`, `scaled` how norms stay in range.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adamx.core import shards
from adamx.core.norms import mapped_axes, scaled
from adamx.core.norms.mapped_axes import AxisName


def leaf_norm(x: ArrayLike, axis_name: AxisName | None = None) -> jax.Array:
    """The norm of all elements of `x`, a scalar."""
    return safe_norm(x, axis_name=axis_name)


def safe_norm(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
    axis_name: AxisName | None = None,
) -> jax.Array:
    """The norm of `x` along `axis`, by default along all axes.

    Example:
      >>> import jax.numpy as jnp
      >>> print(safe_norm(jnp.array([[3e20, 0.0], [4e20, 1e-30]]), axis=0))
      [5.e+20 1.e-30]
    """
    x = jnp.asarray(x)
    if axis is not None:
        _check_whole(axis_name)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    ((root, factor),) = scaled.leaf_norms([x], axis_name, [axes])
    return root / factor if keepdims else jnp.squeeze(root / factor, axes)


def global_norm(tree: Any, *, axis_name: AxisName | None = None) -> jax.Array:
    """The norm of all leaves of `tree` together, in the widest of their dtypes.

    Example:
      >>> import jax.numpy as jnp
      >>> print(global_norm({"w": jnp.array([3e-30]), "b": jnp.array([4e-30])}))
      5e-30
    """
    root, factor = scaled.global_norm(jax.tree.leaves(tree), axis_name)
    return root / factor


def rms(x: ArrayLike, axis_name: AxisName | None = None) -> jax.Array:
    """The root mean square of `x`, 0 if `x` has no elements.

    Example:
      >>> import jax.numpy as jnp
      >>> print(rms(jnp.array([1.0, 7.0])))
      5.0
    """
    x = jnp.asarray(x)
    _check_whole(axis_name)
    return leaf_norm(x, axis_name) / math.sqrt(max(1, x.size * mapped_axes.pieces(x, axis_name)))


def total(x: jax.Array, axis_name: AxisName | None = None) -> jax.Array:
    """The sum of all elements of `x`, over all of its shards.

    Example:
      >>> import jax.numpy as jnp
      >>> print(total(jnp.array([[1.0, 2.0], [3.0, 4.0]])))
      10.0
    """
    along = mapped_axes.axes(axis_name)
    found = jnp.sum(x)
    if not along.names:
        return found
    return mapped_axes.total(found / mapped_axes.copies(x, along), along)


def _check_whole(axis_name: AxisName | None) -> None:
    """Raises for shards without `axis_name`: they do not show the whole size or the cut axis."""
    if axis_name is None and shards.axis_name() is not None:
        raise ValueError(
            f"arrays are cut over {shards.axis_name()!r} here: pass this name as `axis_name` for "
            "the norm over all shards, or () for the norm of this array alone"
        )
