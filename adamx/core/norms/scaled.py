# SPDX-License-Identifier: Apache-2.0
"""Norms as a root and a factor: the norm is root / factor, and neither leaves its dtype's range.

A first pass sums plain squares. If a sum overflowed or underflowed, one `lax.cond` reads the arrays
again, multiplied by a power of two; the common path reads them once. A `psum` of three scaled
versions of a sum combines shards, outside the `cond`, so that devices that took different branches
agree. The public norms are in `plain`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adamx.core import dtypes, shards
from adamx.core.norms import mapped_axes
from adamx.core.norms.mapped_axes import Axes as Along
from adamx.core.norms.mapped_axes import AxisName

Axes = tuple[int, ...] | None


class Scaled(NamedTuple):
    """A norm, root / factor; the factor is 1 except for very large and very small norms."""

    root: jax.Array
    factor: jax.Array


def global_norm(leaves: Sequence[Any], axis_name: AxisName | None = None) -> Scaled:
    """The norm of all leaves together, a scalar."""
    return _norms([list(leaves)], (None,), mapped_axes.axes(axis_name))[0]


def leaf_norms(
    leaves: Sequence[Any],
    axis_name: AxisName | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Scaled]:
    """The norm of each leaf: a scalar, or along its own axes, which keep size 1."""
    groups, every = [[x] for x in leaves], tuple(axes or [None] * len(leaves))
    return _norms(groups, every, mapped_axes.axes(axis_name)) if groups else []


@functools.partial(jax.jit, static_argnums=(1, 2))
def _norms(groups: Any, axes: tuple[Axes, ...], along: Along) -> list[Scaled]:
    """One norm per group of arrays; a group of several arrays has no axes."""
    rows = list(zip(groups, axes, strict=True))
    plain, factors, flags = zip(*(_first(xs, axis, along) for xs, axis in rows), strict=True)

    def again() -> tuple[jax.Array, ...]:
        return tuple(
            _group_sum(xs, axis, along, factor)
            for (xs, axis), factor in zip(rows, factors, strict=True)
        )

    flag = jnp.any(lax.concatenate(flags, 0))
    if shards.axis_name() and not along.names:  # no psum follows: all must take the same branch
        flag = mapped_axes.total(flag.astype(jnp.int32), mapped_axes.axes(None)) > 0
    sums = lax.cond(flag, again, lambda: plain)
    return [_root(q, factor, along) for q, factor in zip(sums, factors, strict=True)]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _first(xs: Any, axis: Axes, along: Along) -> tuple[jax.Array, ...]:
    """The sum of plain squares, the factor for a second pass, and whether one is needed."""
    q = _group_sum(xs, axis, along)
    factor = _factor(q)
    return q, factor, jnp.any(factor != 1).reshape(1)


def _group_sum(
    xs: list[Any], axis: Axes, along: Along, factor: jax.Array | None = None
) -> jax.Array:
    dtype = dtypes.real(dtypes.working(*map(dtypes.of, xs)))
    sums = [_sum(x, factor, axis, along, dtype) for x in xs]
    while len(sums) > 1:  # in pairs, so that rounding errors grow with the depth only
        pairs = zip(sums[::2], sums[1::2], strict=False)
        sums = [a + b for a, b in pairs] + sums[len(sums) // 2 * 2 :]
    return sums[0] if sums else jnp.zeros((), dtype)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _sum(x: Any, factor: Any, axis: Axes, along: Along, dtype: Any) -> jax.Array:
    """The sum of squares of `x`, or of `x * factor`, divided by the number of copies of `x`."""

    if factor is not None:
        # For a constant x XLA would compute (x * x) * (factor * factor), inf * 0.
        x = lax.optimization_barrier(x)

    def squares(part: jax.Array) -> jax.Array:
        part = part.astype(dtype)
        return jnp.square(part if factor is None else part * factor)

    q = squares(x.real) + squares(x.imag) if jnp.iscomplexobj(x) else squares(x)
    return jnp.sum(q, axis, keepdims=axis is not None) / mapped_axes.copies(x, along)


@functools.partial(jax.jit, static_argnums=2)
def _root(q: jax.Array, factor: jax.Array, along: Along) -> Scaled:
    """The root of the sum over all shards, with the factor that this sum needs."""
    if along.names:
        # An infinite ratio is never chosen but would make the gradient NaN: inf * 0.
        ratios = [jnp.minimum(w / factor, _windows(q.dtype)[2]) for w in _windows(q.dtype)]
        low, plain, high = mapped_axes.total(jnp.stack([q * r * r for r in ratios]), along)
        factor = _factor(plain)
        q = jnp.where(factor < 1, low, jnp.where(factor > 1, high, plain))
    return Scaled(jnp.where(q == 0, 0, jnp.sqrt(jnp.where(q == 0, 1, q))), factor)


def _factor(q: jax.Array) -> jax.Array:
    """1 where the sum of squares `q` is in range, else the factor that elements need."""
    low, plain, high = _windows(q.dtype)
    # Below this, squares that were flushed to zero may matter.
    least = np.asarray(2.0 ** -(jnp.finfo(q.dtype).maxexp // 2), q.dtype)
    return jnp.where(q == jnp.inf, low, jnp.where(q < least, high, plain))


def _windows(dtype: Any) -> np.ndarray:
    """For float32 2^-80, 1, 2^90: they make squares of the largest and smallest number normal."""
    most = jnp.finfo(dtype).maxexp
    return np.asarray([2.0 ** -(most * 5 // 8), 1.0, 2.0 ** (most * 45 // 64)], dtype)
