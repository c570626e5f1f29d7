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


class Words(NamedTuple):
    """Three 32-bit words that identify one leaf's bits at one step."""

    start: ArrayLike
    twist: ArrayLike
    step: ArrayLike


class Key(NamedTuple):
    """Identifies the bits of one leaf, or of a shard of it, at one step.

    Attributes:
      words: the words of the leaf and the step.
      whole: the shape of the whole leaf; None if the array is whole.
      first: the position of the shard's first element in it.
    """

    words: Words
    whole: tuple[int, ...] | None = None
    first: ArrayLike = 0


Seed = int | jax.Array  # may be traced, so that members of a `vmap` differ


def words(seed: Seed, count: ArrayLike, leaf: int) -> Words:
    """The words of the leaf with the salt `leaf`, at step `count`."""
    word = seed if isinstance(seed, jax.Array) else np.asarray([seed]).astype(np.uint32)
    word = mix(word.astype(np.uint32) + _GOLDEN)  # first, or seed and leaf would commute
    word = mix((word ^ np.uint32(leaf)) + _GOLDEN)
    step = jnp.asarray(count).astype(jnp.int32)
    return Words(word.reshape(()), mix(word + _GOLDEN).reshape(()), step)


def of_leaves(
    seeds: Sequence[Seed | None], count: ArrayLike | None, names: Sequence[str]
) -> list[Words | None]:
    """The words of leaves with these seeds and names; a seed of None draws no bits.

    To a compiler they are scalars that it does not know. As constants they would make a program of
    its own of every leaf; in one array, an operand for whose sake it merges leaves. Links with the
    same seed get the same scalars, and a leaf's bits are hashed once for all of them.
    """
    if count is None:
        return [None] * len(names)
    pairs = zip(seeds, names, strict=True)
    found = [None if seed is None else words(seed, count, salt(name)) for seed, name in pairs]
    if not any(found):
        return found
    hidden = lax.optimization_barrier([x and (x.start, x.twist) for x in found])
    pairs = zip(found, hidden, strict=True)
    return [x and Words(pair[0], pair[1], x.step) for x, pair in pairs]


class Noise(NamedTuple):
    """The bits of a leaf at one step: 32 for each element and draw, as an int32.

    Attributes:
      hash: 32 bits of each element, the same at all steps.
      step: the number of the step, an int32.
    """

    hash: jax.Array
    step: jax.Array

    def draw(self, i: int) -> jax.Array:
        """32 bits for each element, different for each `i`; the upper ones are even over time."""
        odd, turn = _DRAWS[i % len(_DRAWS)]
        return self.hash * odd + self.step * turn


def noise(key: Key, shape: tuple[int, ...]) -> Noise:
    """The bits of an array of `shape`.

    Two rounds of a multiplicative hash. The second word is folded in between them, so that two
    streams are not shifted copies of each other.
    """
    (start, twist, step), whole, first = key
    x = index(shape, whole) + (start + jnp.asarray(first, jnp.uint32))
    x = x * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 15) ^ twist) * np.uint32(0xC2B2AE35)
    return Noise(lax.bitcast_convert_type(x ^ (x >> 16), jnp.int32), jnp.asarray(step))


def index(shape: tuple[int, ...], whole: tuple[int, ...] | None = None) -> jax.Array:
    """Each element's position in row-major order, modulo 2^32, from one iota per dimension.

    `whole` is the shape to count in, if it is larger. A flat iota would need a reshape, which a
    partitioner cannot do without moving data.
    """
    position, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        iota = lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + iota * np.uint32(stride % 2**32)
        stride *= (whole or shape)[axis]
    return position


# 2^32 / golden ratio: the increment that spreads most evenly. Also keeps zero out of the hash.
_GOLDEN = np.uint32(0x9E3779B9)

# Of each draw a factor, which makes other bits of the hash, and an increment per step. The first
# is for squares in 8 bits: it leaves them less off while they fall than others do. Golden is for
# squares in bfloat16, the others are powers of the plastic number and of its relative.
_DRAWS = tuple(
    tuple(np.asarray(pair, np.uint32).view(np.int32))
    for pair in (
        (1, 0x8CB92BA7),
        (0x9E3779B1, _GOLDEN),
        (0x85EBCA77, 0xC13FA9A9),
        (0xC2B2AE3D, 0x91E10DA5),
        (0x27D4EB2F, 0xD1B54A32),
    )
)

LANDING = len(_DRAWS) - 1  # the draw that no storage takes: a leaf's bits are hashed once for both


def mix(x: Any) -> Any:
    """A hash of each 32-bit word: changing one bit changes half of the result's bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
