# SPDX-License-Identifier: Apache-2.0
"""Whether a step is taken, and how it is not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx.core.norms import mapped_axes
from adamx.health.states import ObserveState


class Verdict(NamedTuple):
    """What a guard says of a step.

    Attributes:
      skip: whether it is better not taken.
      leaf: the number of the leaf that says so.
    """

    skip: jax.Array
    leaf: jax.Array


def finite(grads: list, steps: Any, inner: Any, before: Any) -> Verdict:
    """Of the first leaf whose gradient or step is not finite; the state comes last.

    Of a state counts what was finite before: some begin with infinity, such as a best loss.
    """
    pairs = zip(grads, jax.tree.leaves(steps), strict=True)
    bad = [_is_bad(g) | _is_bad(u) for g, u in pairs]
    held = [_is_bad(x, y) for x, y in zip(_held(inner), _held(before), strict=True)]
    bad.append(jnp.any(jnp.stack(held)) if held else jnp.zeros([], bool))
    bad = anywhere(jnp.stack(bad))
    return Verdict(jnp.any(bad), jnp.argmax(bad))


def unless(skip: jax.Array, steps: Any, inner: Any, before: Any) -> tuple[Any, Any]:
    """The steps and the new state; no steps, and the state from before, where skipped."""
    steps = jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), steps)
    return steps, jax.tree.map(lambda new, old: jnp.where(skip, old, new), inner, before)


def anywhere(bad: jax.Array) -> jax.Array:
    """What is so in any shard is so."""
    along = mapped_axes.axes(None)
    return mapped_axes.total(bad.astype(jnp.int32), along) > 0 if along.names else bad


def _held(state: Any) -> list[Any]:
    """The arrays of a state, but for figures of observers, which may be anything."""
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, ObserveState)):
        found += _held(node.inner) if isinstance(node, ObserveState) else [node]
    return found


def _is_bad(x: Any, before: Any = 0.0) -> jax.Array:
    """Whether a number of an array is not finite that was; integers carry NaN in codes of their
    own, which whoever reads them sees in the next update."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros([], bool)
    return jnp.any(~jnp.isfinite(x) & jnp.isfinite(before))
