# SPDX-License-Identifier: Apache-2.0
"""A checksum of every array of a run, computed on its devices.

    checksum(x) = sum over i of hash(bits of x[i], i)    mod 2^32

A sum does not depend on the order of its terms, so that an array has the same checksum under any
sharding, on any number of devices and processes. The hash is one to one in the bits of an element,
so that a single changed element is always found, and several with a probability of 1 - 2^-32.

It takes about 70 ms per 100 MB of float32, and 230 ms of 8-bit codes, on two busy CPU cores, once
to save and once to restore. Orbax takes about 400 ms there to write 100 MB, and as long to read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from adamx.core import paths


def checksums(tree: Any) -> dict[str, int]:
    """The checksum of every array in a tree, by its name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = {paths.name(path): _on_device(leaf) for path, leaf in leaves}
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


def _on_device(x: Any) -> jax.Array:
    """The bits of a key, or the array, moved to where a program can read it."""
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = jnp.asarray(x)
    if getattr(x.sharding, "memory_kind", None) == "pinned_host":
        x = jax.device_put(x, x.sharding.with_memory_kind("device"))
    return x


@jax.jit
def _checksums(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _checksum(x) for name, x in arrays.items()}


def _checksum(x: jax.Array) -> jax.Array:
    place = jnp.zeros(x.shape, jnp.uint32)
    for dimension, size in enumerate(x.shape):
        index = lax.broadcasted_iota(jnp.uint32, x.shape, dimension)
        place = place * jnp.uint32(size % 2**32) + index
    found = jnp.uint32(0)
    for words in _words(x):
        place = place + jnp.uint32(0x7FEB352D)  # other places for the words of one element
        found = found + jnp.sum(_mixed(words ^ (place * jnp.uint32(0x9E3779B9))), dtype=jnp.uint32)
    return found


def _words(x: jax.Array) -> list[jax.Array]:
    """The bits of each element, as one or more arrays of uint32."""
    if jnp.iscomplexobj(x):
        return [*_words(x.real), *_words(x.imag)]
    if x.dtype == jnp.bool_:
        return [x.astype(jnp.uint32)]
    is_whole = jnp.issubdtype(x.dtype, jnp.integer)
    bits = (jnp.iinfo if is_whole else jnp.finfo)(x.dtype).bits
    if bits < 8:  # exact in the wider type
        return _words(x.astype(jnp.int32 if is_whole else jnp.float32))
    if bits == 64:
        both = lax.bitcast_convert_type(x, jnp.uint32)
        return [both[..., 0], both[..., 1]]
    return [lax.bitcast_convert_type(x, f"uint{bits}").astype(jnp.uint32)]


def _mixed(h: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: one to one, each bit depends on all bits."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
