# SPDX-License-Identifier: Apache-2.0
"""The eigenbases of an array's dimensions: covariances, their eigenvectors, and rotations.

`bases` has a square matrix for each dimension, whose columns are eigenvectors, or
`optax.MaskedNode()` for a dimension that is left as it is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core.instances import is_hole

HOLE = optax.MaskedNode()
Bases = Sequence[Any]


def rotated_dims(shape: Sequence[int], most: int) -> tuple[bool, ...]:
    """Which dimensions have a basis: those of 2 to `most` elements, except in vectors."""
    is_vector = sum(size > 1 for size in shape) < 2 or 0 in shape
    return tuple(not is_vector and 1 < size <= most for size in shape)


def covariances(x: jax.Array, like: Bases) -> tuple[Any, ...]:
    """For each dimension that `like` has, the inner products of the slices of `x` along it.

    Finite numbers are held within a range in which these are finite.
    """
    most = jnp.asarray(2.0 ** (jnp.finfo(x.dtype).maxexp // 2 - 2) / max(1, x.size) ** 0.5, x.dtype)
    size = jnp.abs(x).astype(x.dtype)
    x = x * jnp.where(size.real > most.real, most / size, jnp.ones_like(size)) + 0 * x
    found = []
    for dim, basis in enumerate(like):
        others = tuple(i for i in range(x.ndim) if i != dim)
        found.append(HOLE if is_hole(basis) else _dot(x, jnp.conj(x), (others, others)))
    return tuple(found)


def into(x: jax.Array, bases: Bases) -> jax.Array:
    """`x` in the coordinates of its bases."""
    return _turned(x, [HOLE if is_hole(q) else jnp.conj(q) for q in bases])


def out_of(x: jax.Array, bases: Bases) -> jax.Array:
    """The inverse of `into`."""
    return _turned(x, [HOLE if is_hole(q) else q.T for q in bases])


def moved(x: jax.Array, before: Bases, after: Bases) -> jax.Array:
    """An array from the coordinates of some bases to those of others."""
    pairs = zip(before, after, strict=True)
    turns = [HOLE if is_hole(p) else _dot(p, jnp.conj(q), ((0,), (0,))) for p, q in pairs]
    return _turned(x, turns)


def sorted_along(x: jax.Array, orders: Sequence[Any]) -> jax.Array:
    """`x` with the indices of each dimension in the given order."""
    for dim, order in enumerate(orders):
        x = x if is_hole(order) else jnp.take(x, order, axis=dim)
    return x


def eigenvectors(covariance: jax.Array) -> jax.Array:
    """The eigenvectors, that of the largest eigenvalue first."""
    return jnp.linalg.eigh(_within_one(covariance))[1][:, ::-1]


def power_step(covariance: jax.Array, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of orthogonal iteration from `basis`, and the order into which that was sorted.

    Columns are sorted by their Rayleigh quotients first, as QR keeps the leading ones best.
    """
    covariance = _within_one(covariance)
    ahead = _dot(covariance, basis, ((1,), (0,)))
    order = jnp.argsort(-jnp.sum(jnp.conj(basis) * ahead, axis=0).real)
    return jnp.linalg.qr(jnp.take(ahead, order, axis=1))[0], order


def _turned(x: jax.Array, turns: Bases) -> jax.Array:
    """`x` with each dimension contracted with the rows of a matrix."""
    for dim, turn in enumerate(turns):
        if not is_hole(turn):
            x = jnp.moveaxis(_dot(x, turn, ((dim,), (0,))), -1, dim)
    return x


def _dot(a: jax.Array, b: jax.Array, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> jax.Array:
    return jnp.tensordot(a, b, axes, precision=lax.Precision.HIGHEST)


def _within_one(covariance: jax.Array) -> jax.Array:
    """A covariance whose largest number is 1, so that squares of its numbers are in range."""
    peak = jnp.max(jnp.abs(covariance))
    return covariance / jnp.where(peak == 0, 1, peak).astype(covariance.dtype)
