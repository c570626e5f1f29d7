# SPDX-License-Identifier: Apache-2.0
"""Bits for stochastic rounding: the same for (seed, step, leaf, element) on any device.

No key in the state, no collective, no dependence on how an array is sharded or on how often a run
was restarted. (Inside `shard_map` or `pmap` a shard looks like a whole array, and all shards would
draw the same bits; `shards.cutting` gives their place in the whole array. Likewise all members of
a `vmap` draw the same bits, unless each has a seed of its own, which may be traced.)

Each element starts at a hash of seed, leaf and element, modulo 2^32. Each step adds a fixed,
irrational fraction of 2^32. So at each step the elements' bits are independent and uniform, as
unbiased rounding needs. Over the steps an element's bits are far more even than random bits: after
rounding up it soon rounds down, and errors cancel instead of adding up. While a square falls, this
halves the noise of an 8-bit code. In exchange successive roundings depend on each other: a moment
may settle a per cent off. This is noise for rounding, not for statistics.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


def salt(path: str) -> int:
    """A 32-bit hash of a leaf's path, which does not change with masking or reordering."""
    return zlib.crc32(path.encode())


def keys(seeds: ArrayLike, count: ArrayLike, leaves: ArrayLike) -> jax.Array:
    """Three 32-bit words that identify one leaf's bits at one step; one row per leaf if several."""
    word = mix(jnp.asarray(seeds, jnp.uint32) + _GOLDEN)  # first, or seed and leaf would commute
    word = mix((word ^ jnp.asarray(leaves).astype(jnp.uint32)) + _GOLDEN)
    step = jnp.broadcast_to(jnp.asarray(count).astype(jnp.uint32), word.shape)
    return jnp.stack([word, mix(word + _GOLDEN), step], axis=-1)


class Key(NamedTuple):
    """Identifies the bits of one leaf, or of a shard of it, at one step.

    Attributes:
      words: three words of `keys`.
      whole: the shape of the whole leaf; None if the array is whole.
      first: the position of the shard's first element in it.
    """

    words: jax.Array
    whole: tuple[int, ...] | None = None
    first: ArrayLike = 0


Seed = int | jax.Array  # may be traced, so that members of a `vmap` differ


class Streams(NamedTuple):
    """The bits of all leaves at one step, with their words computed at once.

    Attributes:
      words: a row of `keys` for each leaf; None if no leaf draws bits.
      drawn: whether each leaf draws bits.
    """

    words: jax.Array | None
    drawn: tuple[bool, ...]

    @classmethod
    def of(
        cls, seeds: Sequence[Seed | None], count: ArrayLike | None, names: Sequence[str]
    ) -> "Streams":
        """The streams of leaves with these seeds and names; a seed of None draws no bits."""
        drawn = tuple(seed is not None for seed in seeds)
        if count is None or not any(drawn):
            return cls(None, drawn)
        salts = np.asarray([salt(name) for name in names], np.uint32)
        words: Any = [0 if seed is None else seed for seed in seeds]
        if all(isinstance(seed, int | np.integer) for seed in words):
            words = np.asarray(words, np.uint32)
        else:
            words = jnp.stack([jnp.asarray(seed).astype(jnp.uint32) for seed in words])
        return cls(keys(words, count, salts), drawn)

    def row(self, i: int) -> tuple[jax.Array, np.uint32] | None:
        """The arguments of `key` for leaf `i`; None if it draws no bits.

        All words and an index, so that leaves of one shape can share a trace.
        """
        return (self.words, np.uint32(i)) if self.words is not None and self.drawn[i] else None


def key(row: tuple[jax.Array, ArrayLike], whole: tuple[int, ...] | None, first: ArrayLike) -> Key:
    """The key of one leaf, from a row of `Streams`."""
    return Key(lax.dynamic_index_in_dim(*row, keepdims=False), whole, first)


def bits(key: Key, shape: tuple[int, ...], draw: int = 0) -> jax.Array:
    """32 bits for each element of an array of `shape`, different for each `draw`.

    The upper bits are even over time. The hash is MurmurHash3's finalizer with the second word
    folded in between its rounds, so that two streams are not shifted copies of each other.
    """
    words, whole, first = key
    start = words[0] + jnp.asarray(first, jnp.uint32)
    x = index(shape, whole) + (start + np.uint32(draw * int(_GOLDEN) % 2**32))
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B) ^ words[1]
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return (x ^ (x >> 16)) + words[2] * _TURNS[draw % len(_TURNS)]


def index(shape: tuple[int, ...], whole: tuple[int, ...] | None = None) -> jax.Array:
    """Each element's position in row-major order, modulo 2^32, from one iota per dimension.

    `whole` is the shape to count in, if it is larger. A flat iota would need a reshape, which a
    partitioner cannot do without moving data.
    """
    position, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        iota = lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + iota * jnp.uint32(stride % 2**32)
        stride *= (whole or shape)[axis]
    return position


# 2^32 / golden ratio: the increment that spreads most evenly. Also keeps zero out of the hash.
_GOLDEN = np.uint32(0x9E3779B9)

# The increment of each draw: golden, then 2^32 over powers of the plastic number and its relatives.
_TURNS = (_GOLDEN, np.uint32(0xC13FA9A9), np.uint32(0x91E10DA5), np.uint32(0xD1B54A32))


def mix(x: jax.Array) -> jax.Array:
    """A hash of each 32-bit word: changing one bit changes half of the result's bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
