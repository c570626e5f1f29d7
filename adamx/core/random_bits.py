# SPDX-License-Identifier: Apache-2.0
"""Bits for rounding by chance: the same for (seed, step, leaf, element) wherever they are computed.

No key in the state, no collective, no dependence on how an array is sharded or on how often a run
was restarted. (A function inside `shard_map` or `pmap` takes a shard for an array of its own, whose
bits other shards draw too, unless it is told of the whole: `cuts` does so.)

Where an element starts on the circle of 2^32 is a hash of seed, leaf and element. From step to step
it moves on by a fixed, irrational part of the circle. So at each step the elements' bits are
independent and uniform, as rounding without bias needs; and over the steps an element's bits are
far more even than chance: what was rounded up is soon rounded down, and errors cancel instead of
adding up. Where a square falls, that halves the noise of an 8-bit code. In exchange roundings in a
row depend on each other: what settles may settle a per cent off. This is noise for rounding, not
for statistics.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


def salt(path: str) -> int:
    """A 32-bit number for a leaf, from its path, so that it survives masking and reordering."""
    return zlib.crc32(path.encode())


def keys(seeds: ArrayLike, count: ArrayLike, leaves: ArrayLike) -> jax.Array:
    """Three 32-bit words that name the bits of one leaf at one step, or a row of them for each."""
    word = mix(jnp.asarray(seeds, jnp.uint32) + _GOLDEN)  # before the next part, or they commute
    word = mix((word ^ jnp.asarray(leaves).astype(jnp.uint32)) + _GOLDEN)
    step = jnp.broadcast_to(jnp.asarray(count).astype(jnp.uint32), word.shape)
    return jnp.stack([word, mix(word + _GOLDEN), step], axis=-1)


class Key(NamedTuple):
    """Names the bits of one leaf at one step, or of a shard of it.

    Attributes:
      words: three words of `keys`.
      whole: the shape of the whole leaf.
      first: the position in it of the shard's first element.
    """

    words: jax.Array
    whole: tuple[int, ...]
    first: ArrayLike = 0


def bits(key: Key | jax.Array, shape: tuple[int, ...], draw: int = 0) -> jax.Array:
    """32 bits for each element of an array of `shape`, others for each `draw`.

    Three words of `keys` alone are the key of an array that is whole.

    The upper ones are the even ones over time. The hash is MurmurHash3's finalizer with the second
    word folded in between its rounds, so that two streams are not shifted copies of each other.
    """
    words, whole, first = key if isinstance(key, Key) else Key(key, shape)
    start = words[0] + jnp.asarray(first, jnp.uint32)
    x = index(shape, whole) + (start + np.uint32(draw * int(_GOLDEN) % 2**32))
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B) ^ words[1]
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return (x ^ (x >> 16)) + words[2] * _TURNS[draw % len(_TURNS)]


def index(shape: tuple[int, ...], whole: tuple[int, ...] | None = None) -> jax.Array:
    """Each element's position in row-major order, modulo 2^32, from one iota per dimension; in that
    of a whole array, if both begin at the same element.

    A flat iota would have to be reshaped, which a partitioner can't do without moving data.
    """
    position, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        iota = lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + iota * jnp.uint32(stride % 2**32)
        stride *= (whole or shape)[axis]
    return position


# 2^32 over the golden ratio: the most even turn of a circle, and no zero to hash.
_GOLDEN = np.uint32(0x9E3779B9)

# A turn for each draw: beside the golden one, 2^32 over powers of the plastic number and its kin.
_TURNS = (_GOLDEN, np.uint32(0xC13FA9A9), np.uint32(0x91E10DA5), np.uint32(0xD1B54A32))


def mix(x: jax.Array) -> jax.Array:
    """A hash of each 32-bit word: a change of one bit changes half of them."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
