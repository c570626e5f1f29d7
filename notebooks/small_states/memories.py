# SPDX-License-Identifier: Apache-2.0
"""Adam's direction from moments held in some format: ours by name, or a reference of the tests'."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import adamx
from tests import blockwise


class Memory(NamedTuple):
    """One format on the stream.

    Attributes:
      init: `params -> state`.
      step: `(grads, state) -> (direction, mean squares as the next step will read them, state)`.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any], tuple[Any, Any, Any]]


def memory(name: str, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Memory:
    """The format of that name: a storage of adamx, else one of `tests/blockwise.py`."""
    if name in blockwise.FORMATS:
        return _reference(blockwise.FORMATS[name], b1, b2, eps)
    return _storage(name, b1, b2, eps)


def _storage(name: str, b1: float, b2: float, eps: float) -> Memory:
    link = adamx.scale_by_adam(b1, b2, eps, storage=name)
    storage, kinds = adamx.storage.named(name), adamx.rules.adam().moments

    def squares(state: Any) -> Any:
        # Optax's class holds a tree per moment, the one of packed moments a table of them.
        columns = getattr(state, "arrays", None) or {"mu": state.mu, "nu": state.nu}
        treedef = jax.tree.structure(next(iter(columns.values())))
        rows = zip(*(treedef.flatten_up_to(tree) for tree in columns.values()), strict=True)
        rests = [dict(zip(columns, row, strict=True)) for row in rows]
        return treedef.unflatten([storage.decode(rest, kinds)["nu"] for rest in rests])

    def step(grads: Any, state: Any) -> tuple[Any, Any, Any]:
        direction, state = link.update(grads, state)
        return direction, squares(state), state

    return Memory(link.init, step)


def _reference(reference: blockwise.Reference, b1: float, b2: float, eps: float) -> Memory:
    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.int32(0), zeros, zeros

    def step(grads: Any, state: Any) -> tuple[Any, Any, Any]:
        count, means, squares = state
        t = (count + 1).astype(jnp.float32)
        means = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, means, grads)
        squares = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, squares, grads)
        bc1, bc2 = -jnp.expm1(t * jnp.log(b1)), -jnp.expm1(t * jnp.log(b2))
        direction = jax.tree.map(lambda m, v: (m / bc1) / (jnp.sqrt(v / bc2) + eps), means, squares)
        means = jax.tree.map(reference.mean, means)
        squares = jax.tree.map(reference.square, squares)
        return direction, squares, (count + 1, means, squares)

    return Memory(init, step)
