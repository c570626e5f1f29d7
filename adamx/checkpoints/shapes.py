# SPDX-License-Identifier: Apache-2.0
"""The shapes of a run, and the devices that its arrays are restored to."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.state_paths import owned
from adamx.parallel.loss import Run


def plain(run: Run) -> dict[str, Any]:
    """A run as a dictionary, without its fields that are None."""
    return {k: v for k, v in run._asdict().items() if v is not None}


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None)
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)


def placed_like(state: Any, like: Run) -> Any:
    """The shapes of a state of another storage, with the shardings of the moments in `like`."""
    places: dict[Any, Any] = {}
    for x in owned(like.state, like.params):
        places.setdefault((x.owner, x.leaf.shape), x.leaf.sharding)
    shapes = [
        jax.ShapeDtypeStruct(
            x.leaf.shape, x.leaf.dtype, sharding=places.get((x.owner, x.leaf.shape))
        )
        for x in owned(state, like.params)
    ]
    return jax.tree.structure(state).unflatten(shapes)


def moved(state: Any, like: Any) -> Any:
    """A state, moved to the shardings of `like`."""

    def one(x: Any, at: Any) -> Any:
        return x if at.sharding is None else jax.device_put(x, at.sharding)

    return jax.tree.map(one, state, like)
