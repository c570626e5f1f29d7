# SPDX-License-Identifier: Apache-2.0
"""A checksum of every array of a run, computed on its devices.

It takes about 35 ms per 100 MB of float32, and 130 ms of 8-bit codes, on two CPU cores, once to
save and once to restore. Orbax takes about 400 ms there to write 100 MB, and as long to read.
"""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core import paths
from adamx.core.fingerprint import fingerprint


def checksums(tree: Any) -> dict[str, int]:
    """The checksum of every array in a tree, by its name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = {
        paths.name(path): x if isinstance(x, jax.Array) else jnp.asarray(x) for path, x in leaves
    }
    # One program for all arrays on the same devices, and nothing else at the same time: programs of
    # several processes that run side by side may wait for each other's collectives for ever.
    places: dict[frozenset, dict[str, jax.Array]] = {}
    for name, x in arrays.items():
        places.setdefault(frozenset(x.sharding.device_set), {})[name] = x
    sums = {}
    for together in places.values():
        jax.block_until_ready(together)
        sums |= jax.device_get(_checksums(together))
    return {name: int(sums[name]) for name in arrays}


@jax.jit
def _checksums(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: fingerprint(x) for name, x in arrays.items()}
