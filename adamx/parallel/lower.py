# SPDX-License-Identifier: Apache-2.0
"""Lowers a training step from shapes alone, for devices that need not be there.

The program is that of `step`: the same function, layouts and shardings. The devices of a topology
description, which compile and cannot run, are enough.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from adamx.core import paths
from adamx.parallel.loss import Run


def lowered(
    stepped: Any, run: Run, batch: Any, *, like: Run, stored: Any, place: Callable[[Any], Any]
) -> jax.stages.Lowered:
    """The lowered program of one step of a run and of a whole batch, as arrays or as their shapes.

    `like` has the shapes of a run between steps, where model state and key are not looked at, and
    `stored` its shardings. `place` spreads a batch over the devices, as shapes.
    """
    if jax.process_count() > 1:
        raise ValueError("`lower` takes the whole batch: lower a step in one process")
    run = jax.eval_shape(lambda x: x, run)
    check_layout(
        like, run, "a run for `lower` is as `step` takes it: jax.eval_shape(train.init, params)"
    )
    batch = jax.tree.map(_shape, batch)
    return stepped.lower(jax.tree.map(_placed, run, jax.tree.broadcast(stored, run)), place(batch))


_REMEDY = "a run for `lower` is as `step` takes it: jax.eval_shape(train.init, params)"


def check_layout(like: Run, run: Run, remedy: str) -> None:
    """Raises where a run is not as it is between steps; a collected run is not, for one."""
    like, run = (x._replace(model=None, key=None) for x in (like, run))
    leaves, treedef = paths.flatten(like)
    if jax.tree.structure(run) != treedef:
        raise ValueError(f"{remedy}; this one has another structure")
    for (path, want), got in zip(leaves, jax.tree.leaves(run), strict=True):
        if jnp.shape(got) != want.shape:
            raise ValueError(
                f"{paths.name(path)}: {remedy}, of shape {want.shape} here; got {jnp.shape(got)}"
            )


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    held = getattr(x, "sharding", None)
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=held)


def _placed(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding, weak_type=x.weak_type)
