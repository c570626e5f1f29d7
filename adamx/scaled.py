# SPDX-License-Identifier: Apache-2.0
"""Norms as a root and a factor: the norm is root / factor, and neither leaves its dtype's range.

A first pass sums plain squares. Only where such a sum overflowed or underflowed are the arrays read
again, multiplied by a power of two, behind one `lax.cond`: the common path reads them once. Shards
meet in a `psum` of three scaled versions of a sum, outside of the `cond`, so that devices that took
different branches agree. Public functions on norms are in `norms`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx import dtypes, shards
from adamx.shards import AxisName


class Scaled(NamedTuple):
    """A norm, root / factor; the factor is 1 except for very large and very small norms."""

    root: jax.Array
    factor: jax.Array


def group_norms(
    groups: Sequence[Sequence[ArrayLike]], axis_name: AxisName | None = None
) -> list[Scaled]:
    """One scalar norm for each group of arrays: for each leaf alone, or for all leaves at once."""
    # Apart by dtype and by what JAX knows to vary, so that neither spreads to the others.
    kinds = [(_dtype(*xs), shards.varying(*xs)) for xs in groups]
    found: dict[int, Scaled] = {}
    for kind in dict.fromkeys(kinds):
        alike = [i for i, other in enumerate(kinds) if other == kind]
        norms = _group_norms([groups[i] for i in alike], shards.names(axis_name))
        found |= zip(alike, norms, strict=True)
    return [found[i] for i in range(len(groups))]


@functools.partial(jax.jit, static_argnums=1)
def _group_norms(groups: Any, axis_name: tuple[str, ...]) -> list[Scaled]:
    """All sums in one vector, so that there is one `cond` and one `psum` however many groups."""

    def squares(factors: Any) -> list[jax.Array]:
        factors = [None] * len(groups) if factors is None else _split(factors[0])
        return [lax.concatenate([_sum(*row, axis_name) for row in zip(groups, factors)], 0)]

    ((roots, factors),) = _guarded(squares, axis_name)
    return [Scaled(r, f) for r, f in zip(_split(roots), _split(factors), strict=True)]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _unit_norms(xs: Any, axes: tuple[tuple[int, ...], ...], axis_name: tuple) -> list[Scaled]:

    def squares(factors: Any) -> list[jax.Array]:
        factors = factors or [None] * len(xs)
        rows = zip(xs, factors, axes, strict=True)
        return [_squares(x, factor, axis, axis_name, _dtype(x)) for x, factor, axis in rows]

    return _guarded(squares, axis_name)
