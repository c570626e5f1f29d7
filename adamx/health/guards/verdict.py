# SPDX-License-Identifier: Apache-2.0
"""Decides whether to skip a step, and skips it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx.core.norms import mapped_axes
from adamx.health.states import ObserveState


class Verdict(NamedTuple):
    """Whether to skip a step, and the number of the leaf that is the reason."""

    skip: jax.Array
    leaf: jax.Array


def nothing() -> Verdict:
    """The verdict on a tree without leaves."""
    return Verdict(jnp.zeros([], bool), jnp.zeros([], jnp.int32))


def finite(grads: list, steps: Any, inner: Any, before: Any) -> Verdict:
    """Skips if a gradient, a step or the state is not finite; `leaf` is the first, the state last.

    State values that were not finite before are ignored: a best loss, say, starts at infinity.
    """
    pairs = zip(grads, jax.tree.leaves(steps), strict=True)
    bad = [_is_bad(g) | _is_bad(u) for g, u in pairs]
    held = [_is_bad(x, y) for x, y in zip(_held(inner), _held(before), strict=True)]
    bad.append(jnp.any(jnp.stack(held)) if held else jnp.zeros([], bool))
    bad = anywhere(jnp.stack(bad))
    return Verdict(jnp.any(bad), jnp.argmax(bad))


def unless(skip: jax.Array, steps: Any, inner: Any, before: Any) -> tuple[Any, Any]:
    """The steps and the new state; if skipped, zero steps and the old state."""
    steps = jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), steps)
    return steps, jax.tree.map(lambda new, old: jnp.where(skip, old, new), inner, before)


def anywhere(bad: jax.Array) -> jax.Array:
    """True everywhere if true on any device."""
    along = mapped_axes.axes(None)
    return mapped_axes.total(bad.astype(jnp.int32), along) > 0 if along.names else bad


def _held(state: Any) -> list[Any]:
    """The arrays of a state without the figures of observers, which need not be finite."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, ObserveState)):
        found += _held(node.inner) if isinstance(node, ObserveState) else [node]
    return found


def _is_bad(x: Any, before: Any = 0.0) -> jax.Array:
    """Whether any value is not finite that was finite before. Integer formats store NaN as a code,
    which becomes NaN again in the next update."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros([], bool)
    return jnp.any(~jnp.isfinite(x) & jnp.isfinite(before))
