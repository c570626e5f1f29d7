# SPDX-License-Identifier: Apache-2.0
"""A loop over an array that `jit` spreads over a mesh: each device runs it over its own shard."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, use_abstract_mesh


def elementwise(
    call: Callable[..., tuple[Any, ...]],
    arrays: int,
    only_direction: bool,
    whole: tuple[int, ...] | None,
) -> Callable[..., tuple[Any, ...]]:
    """`call(whole, *operands)`, without a gather where arrays are sharded.

    The operands are `arrays` arrays, which are sharded alike, then the scalars, the position of the
    first element, and other numbers, which are the same everywhere. There are as many results as
    arrays, or with `only_direction` one fewer. `whole` is the shape that positions count in, if the
    arrays are shards already.
    """

    def sharded(*flat: Any) -> tuple[Any, ...]:
        rank = flat[0].ndim
        if rank == 0:
            return call(whole or (), *flat)

        @custom_partitioning
        def run(*flat: Any) -> tuple[Any, ...]:
            return call(whole or (), *flat)

        def part_size(sharding: Any) -> int:
            return math.prod(sharding.shard_shape(flat[0].shape))

        def partition(mesh: Any, operands: Any, results: Any) -> Any:
            # Where arrays are cut differently, as moments by ZeRO, by the finest of the cuts.
            cuts = (_even(x.sharding, flat[0].shape) for x in operands[:arrays])
            rows = min(cuts, key=part_size)
            everywhere = [NamedSharding(mesh, PartitionSpec()) for _ in flat[arrays:]]
            shape = whole or flat[0].shape

            def shard(*parts: Any) -> tuple[Any, ...]:
                with use_abstract_mesh(_NO_MESH):  # parts lie on one device each
                    first = _first(rows.spec, parts[0].shape, shape)
                    numbers = parts[arrays + 1 :]
                    return call(shape, *parts[: arrays + 1], numbers[0] + first, *numbers[1:])

            return mesh, shard, (rows,) * len(results), (*[rows] * arrays, *everywhere)

        dims = " ".join(f"d{i}" for i in range(rank))
        rest = ", ".join(["s", *[""] * (len(flat) - arrays - 1)])
        count = arrays if only_direction else arrays - 1
        rule = f"{', '.join([dims] * arrays)}, {rest} -> {', '.join([dims] * count)}"
        run.def_partition(partition=partition, sharding_rule=rule, need_replication_factors=("s",))
        return run(*flat)

    return sharded


_NO_MESH = AbstractMesh((), ())


def _even(sharding: Any, shape: tuple[int, ...]) -> NamedSharding:
    """A sharding with an entry for each dimension, without those that its axes do not divide."""
    mesh = sharding.mesh

    def divides(axes: Any, size: int) -> bool:
        names = (axes,) if isinstance(axes, str) else axes or ()
        return size % math.prod(mesh.shape[name] for name in names) == 0

    spec = (*sharding.spec, *[None] * (len(shape) - len(sharding.spec)))
    rows = zip(spec, shape, strict=True)
    kept = (axes if divides(axes, size) else None for axes, size in rows)
    return NamedSharding(mesh, PartitionSpec(*kept))


def _first(spec: Any, part: tuple[int, ...], whole: tuple[int, ...]) -> Any:
    """The row-major position of a shard's first element in the whole array, modulo 2^32."""
    first = jnp.uint32(0)
    for dim, axes in enumerate(spec):
        if axes is None:
            continue
        stride = part[dim] * math.prod(whole[dim + 1 :])
        first += lax.axis_index(axes).astype(jnp.uint32) * jnp.uint32(stride % 2**32)
    return first
