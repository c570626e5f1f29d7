# SPDX-License-Identifier: Apache-2.0
"""A step that is taken in some calls of `update` and costs nothing in the others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from adamx.core import dtypes


def only_if(due: jax.Array, step: Callable[..., tuple[Any, Any]], kept: Any) -> tuple[Any, Any]:
    """`step(kept)`, updates and what is kept, where `due`; else updates of -0.0 and `kept` as it
    is.

    -0.0 added to a parameter is the parameter, bit for bit; 0.0 makes 0.0 of -0.0. Optax's
    optimizers may change dtypes in a step; they are changed back.
    """

    def stepped(kept: Any) -> tuple[Any, Any]:
        updates, new = step(kept)
        return updates, jax.tree.map(_as_before, new, kept)

    def waited(kept: Any) -> tuple[Any, Any]:
        return jax.tree.map(_nothing, updates), jax.tree.map(_varying, kept, after)

    updates, after = jax.eval_shape(stepped, kept)
    return lax.cond(due, stepped, waited, kept)


def _nothing(like: Any) -> jax.Array:
    return _varying(jnp.full_like(like, -0.0, dtype=like.dtype), like)


def _as_before(x: Any, old: Any) -> jax.Array:
    return _varying(jnp.asarray(x).astype(dtypes.of(old)), jax.typeof(old))


def _varying(x: jax.Array, like: Any) -> jax.Array:
    """`x`, marked as varying over the axes of `shard_map` that `like` varies over."""
    axes = _axes(like) - _axes(jax.typeof(x))
    return lax.pcast(x, tuple(axes), to="varying") if axes else x


def _axes(kind: Any) -> frozenset[str]:
    return getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset())
