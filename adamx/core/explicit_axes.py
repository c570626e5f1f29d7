# SPDX-License-Identifier: Apache-2.0
"""What the types of arrays on a mesh of explicit axes cannot say, left to the compiler."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes


def replicated(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function(x)`; on a mesh of explicit axes, on all devices.

    There a sharded dimension cannot be split, joined to others or cut into uneven parts.
    """
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return function(x)
    inside: Any = auto_axes(function, out_sharding=NamedSharding(mesh, PartitionSpec()))
    return inside(x)


def alike(function: Callable[..., Any], like: Any, *args: Any) -> Any:
    """`function(*args)`; on a mesh of explicit axes, the results lie as the arrays of `like` do."""
    types = jax.tree.map(jax.typeof, like)
    meshes = {x.sharding.mesh for x in jax.tree.leaves(types)}
    mesh = next((x for x in meshes if AxisType.Explicit in x.axis_types), None)
    if mesh is None:
        return function(*args)
    out = jax.tree.map(lambda x: NamedSharding(mesh, x.sharding.spec), types)
    inside: Any = auto_axes(function, out_sharding=out)
    return inside(*args)
