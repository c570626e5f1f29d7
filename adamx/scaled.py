# SPDX-License-Identifier: Apache-2.0
"""Norms as a root and a factor: the norm is root / factor, and neither leaves its dtype's range.

A first pass sums plain squares. Only where such a sum overflowed or underflowed are the arrays read
again, multiplied by a power of two, behind one `lax.cond`: the common path reads them once. Shards
meet in a `psum` of three scaled versions of a sum, outside of the `cond`, so that devices that took
different branches agree. The functions on plain norms are in `norms`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adamx import dtypes, shards
from adamx.shards import AxisName

Axes = tuple[int, ...]
Sums = list[jax.Array]


class Scaled(NamedTuple):
    """A norm, root / factor; the factor is 1 except for very large and very small norms."""

    root: jax.Array
    factor: jax.Array


def global_norm(leaves: Sequence[Any], axis_name: AxisName | None = None) -> Scaled:
    """The norm of all leaves together, a scalar."""
    return _global_norm(list(leaves), shards.names(axis_name))


def leaf_norms(leaves: Sequence[Any], axis_name: AxisName | None = None) -> list[Scaled]:
    """The norm of each leaf, a scalar."""
    found: dict[int, Scaled] = {}
    for alike in _kinds(leaves):
        norms = _leaf_norms([leaves[i] for i in alike], shards.names(axis_name))
        found |= zip(alike, norms, strict=True)
    return [found[i] for i in range(len(leaves))]


def unit_norms(
    leaves: Sequence[Any], axes: Sequence[Axes], axis_name: AxisName | None = None
) -> list[Scaled]:
    """The norms of each leaf along its own axes, which stay as ones."""
    found: dict[int, Scaled] = {}
    for alike in _kinds(leaves):
        along = tuple(axes[i] for i in alike)
        norms = _unit_norms([leaves[i] for i in alike], along, shards.names(axis_name))
        found |= zip(alike, norms, strict=True)
    return [found[i] for i in range(len(leaves))]


def _kinds(leaves: Sequence[Any]) -> Iterator[list[int]]:
    """The leaves of one dtype that vary over the same devices: one `cond` and one vector each."""
    kinds = [(_dtype(x), shards.varying(x)) for x in leaves]
    for kind in dict.fromkeys(kinds):
        yield [i for i, other in enumerate(kinds) if other == kind]


@functools.partial(jax.jit, static_argnums=1)
def _global_norm(leaves: list[Any], axis_name: tuple[str, ...]) -> Scaled:
    dtype = _dtype(*leaves)

    def squares(factors: Sums | None) -> Sums:
        factor = None if factors is None else factors[0]
        sums = [_scalar_sum(x, factor, axis_name, dtype) for x in leaves]
        return [jnp.sum(lax.concatenate([np.zeros(1, dtype), *sums], 0))]

    return _guarded(squares, axis_name)[0]


@functools.partial(jax.jit, static_argnums=1)
def _leaf_norms(leaves: list[Any], axis_name: tuple[str, ...]) -> list[Scaled]:
    def split(x: jax.Array) -> Sums:
        return lax.split(x, [1] * len(leaves))

    def squares(factors: Sums | None) -> Sums:
        rows = zip(leaves, split(factors[0]) if factors else [None] * len(leaves), strict=True)
        return [lax.concatenate([_scalar_sum(x, f, axis_name, _dtype(x)) for x, f in rows], 0)]

    ((roots, factors),) = _guarded(squares, axis_name)
    pairs = zip(split(roots), split(factors), strict=True)
    return [Scaled(root.reshape(()), factor.reshape(())) for root, factor in pairs]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _unit_norms(
    leaves: list[Any], axes: tuple[Axes, ...], axis_name: tuple[str, ...]
) -> list[Scaled]:
    def squares(factors: Sums | None) -> Sums:
        rows = zip(leaves, factors or [None] * len(leaves), axes, strict=True)
        return [_sum(x, factor, axis, axis_name, _dtype(x)) for x, factor, axis in rows]

    return _guarded(squares, axis_name)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scalar_sum(x: Any, factor: Any, axis_name: tuple[str, ...], dtype: Any) -> jax.Array:
    return _sum(x, None if factor is None else factor.reshape(()), None, axis_name, dtype).reshape(
        1
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _sum(x: Any, factor: Any, axis: Axes | None, axis_name: tuple, dtype: Any) -> jax.Array:
    """The sum of squares of `x`, or of `x` times `factor`."""

    def squares(part: jax.Array) -> jax.Array:
        part = part.astype(dtype)
        return jnp.square(part if factor is None else part * factor)

    q = squares(x.real) + squares(x.imag) if jnp.iscomplexobj(x) else squares(x)
    return jnp.sum(q, axis, keepdims=axis is not None) / shards.copies(x, axis_name)


def _guarded(squares: Callable[[Sums | None], Sums], axis_name: tuple[str, ...]) -> list[Scaled]:
    """The norms whose squares `squares` sums, once more with factors where the plain ones fail."""
    plain = squares(None)
    factors = [_factor(q) for q in plain]
    rare = jnp.any(jnp.stack([jnp.any(factor != 1) for factor in factors]))
    # The factors pass through the `cond`, or XLA would compute them anew in whatever uses them.
    ones = [jnp.ones_like(factor) for factor in factors]
    sums, factors = lax.cond(rare, lambda: (squares(factors), factors), lambda: (plain, ones))
    return [_root(q, factor, axis_name) for q, factor in zip(sums, factors, strict=True)]


@functools.partial(jax.jit, static_argnums=2)
def _root(q: jax.Array, factor: jax.Array, axis_name: tuple[str, ...]) -> Scaled:
    """The root of the sum over all shards, with the factor that this sum calls for."""
    if axis_name:
        # A ratio of inf, never chosen, would still be a NaN in the gradient: inf * 0.
        ratios = [jnp.minimum(w / factor, _windows(q.dtype)[2]) for w in _windows(q.dtype)]
        low, plain, high = shards.total(jnp.stack([q * r * r for r in ratios]), axis_name)
        factor = _factor(plain)
        q = jnp.where(factor < 1, low, jnp.where(factor > 1, high, plain))
    return Scaled(jnp.where(q == 0, 0, jnp.sqrt(jnp.where(q == 0, 1, q))), factor)


@jax.jit
def _factor(q: jax.Array) -> jax.Array:
    """1 where the sum of squares `q` is in range, else what elements have to be multiplied by."""
    low, plain, high = _windows(q.dtype)
    # Below this, squares that were flushed to zero may have counted.
    least = np.asarray(2.0 ** -(jnp.finfo(q.dtype).maxexp // 2), q.dtype)
    return jnp.where(q == jnp.inf, low, jnp.where(q < least, high, plain))


def _windows(dtype: Any) -> np.ndarray:
    """For float32 2^-80, 1, 2^90: squares of the largest and the least number are then normal."""
    most = jnp.finfo(dtype).maxexp
    return np.asarray([2.0 ** -(most * 5 // 8), 1.0, 2.0 ** (most * 45 // 64)], dtype)


def _dtype(*leaves: Any) -> jnp.dtype:
    return dtypes.real(dtypes.working(*map(dtypes.of, leaves)))
