# SPDX-License-Identifier: Apache-2.0
"""Checks that replicas are equal: one number per array and device, compared on the host.

A replica that differs (a flipped bit, another seed, a forgotten average) trains on without an
error. The number is a sum of hashed bits, which changes with any single element.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from adamx.core import paths
from adamx.core.fingerprint import fingerprint


def check_replicas(tree: Any, *, stacked: bool = False) -> None:
    """Raises if devices hold different copies of an array, and names the leaf.

    Each device reads its arrays once, and only one small array is exchanged. With several
    processes, all of them have to call it.

    Args:
      tree: arrays over a mesh; arrays on one device have no copies and pass.
      stacked: whether the rows of each array are the copies, as in `pmap` between steps.

    Example:
      >>> import jax.numpy as jnp
      >>> check_replicas({"kernel": jnp.ones((8, 4))}, stacked=True)
      >>> check_replicas({"kernel": jnp.ones(8).at[3].set(2)}, stacked=True)
      Traceback (most recent call last):
      ...
      ValueError: kernel: the copy of row 3 is not that of row 0
    """
    flat = paths.flatten(tree)[0]
    names = [paths.name(path) for path, x in flat if isinstance(x, jax.Array)]
    arrays = [x for _, x in flat if isinstance(x, jax.Array)]
    if stacked:
        prints = np.asarray(_of_rows(arrays)).T if arrays else np.zeros((0, 1))
        if jax.process_count() > 1:  # each has the rows of its own devices
            prints = multihost_utils.process_allgather(prints.T).reshape(-1, len(arrays)).T
        _compare(names, prints, "row {}".format)
        return
    over = {i: s for i, x in enumerate(arrays) if (s := _spread(x)) is not None}
    for mesh in dict.fromkeys(sharding.mesh for sharding in over.values()):
        chosen = [i for i, sharding in over.items() if sharding.mesh == mesh]
        specs = tuple(over[i].spec for i in chosen)
        prints = np.asarray(_of_devices(mesh, specs)([arrays[i] for i in chosen]))
        devices = np.asarray(mesh.devices)
        for row, (i, spec) in enumerate(zip(chosen, specs, strict=True)):
            copies, where = _copies(prints[:, row].reshape(devices.shape), devices, mesh, spec)
            for one, held in zip(copies, where, strict=True):
                _compare([names[i]], one[None], lambda k, held=held: str(held[k]))


def _compare(names: Sequence[str], prints: np.ndarray, called: Any) -> None:
    """Raises if the fingerprints in a row, one for each copy, are not all equal."""
    for name, row in zip(names, prints, strict=True):
        other = np.flatnonzero(row != row[0])
        if other.size:
            raise ValueError(
                f"{name}: the copy of {called(int(other[0]))} is not that of {called(0)}"
            )


def _spread(x: jax.Array) -> NamedSharding | None:
    """The sharding of an array over several devices of a mesh; None for other arrays."""
    sharding = x.sharding
    many = len(sharding.device_set) > 1
    return sharding if many and isinstance(sharding, NamedSharding) else None


def _copies(
    prints: np.ndarray, devices: np.ndarray, mesh: Any, spec: PartitionSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints and devices: a row for each shard of an array, a column for each copy."""
    used = {n for part in spec for n in ((part,) if isinstance(part, str) else part or ())}
    cut = [i for i, name in enumerate(mesh.axis_names) if name in used]
    free = [i for i in range(prints.ndim) if i not in cut]
    count = int(np.prod([prints.shape[i] for i in cut], dtype=int))
    order = (*cut, *free)
    return prints.transpose(order).reshape(count, -1), devices.transpose(order).reshape(count, -1)


@functools.lru_cache(maxsize=16)
def _of_devices(mesh: Any, specs: tuple[PartitionSpec, ...]) -> Any:
    """A function from arrays to a row of fingerprints for each device, on all processes."""

    def prints(arrays: list[jax.Array]) -> jax.Array:
        mine = jnp.stack([fingerprint(x) for x in arrays])
        return lax.all_gather(mine, mesh.axis_names)

    return jax.jit(
        jax.shard_map(
            prints, mesh=mesh, in_specs=(list(specs),), out_specs=PartitionSpec(), check_vma=False
        )
    )


@jax.jit
def _of_rows(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([jax.vmap(fingerprint)(x) for x in arrays], 1)
