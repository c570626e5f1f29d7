# SPDX-License-Identifier: Apache-2.0
"""Numbers as 32-bit words: the upper half is a bfloat16 or float16, the lower the bits below it.

A word is an integer with the sign of its number, and words are ordered like their numbers. So
rounding, carrying and crossing zero are integer arithmetic, the same for both dtypes. No compiler
removes this rounding, while XLA may skip a cast of a float32 to bfloat16 and back.

A bfloat16 is the upper half of a float32, so its words are float32's own bits. A float16 has three
exponent bits fewer: between 2^-14 and 65504 a word is float32's bits shifted up by three, below
that a multiple of 2^-40. Every float32 of at least 2^-17 has a word; smaller ones are rounded.
"""

import jax
import jax.numpy as jnp
from jax import lax

HALVES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))

# The smallest word that stands for no finite number.
_INFINITE = {jnp.dtype(jnp.bfloat16): 0x7F800000, jnp.dtype(jnp.float16): 0x7C000000}

# In float32's bits: 2^-14, the smallest normal float16; 2^16, the end of its range; and the
# difference of the two exponent biases.
_NORMAL, _END, _APART = 113 << 23, 143 << 23, 112 << 23


def of(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The word of a float32; the infinite word or a larger one for NaN and overflow of `dtype`."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    size = bits & 0x7FFFFFFF
    if dtype == jnp.float16:
        small = lax.round(jnp.minimum(jnp.abs(x), 2.0**-14) * 2.0**40, _TO_EVEN).astype(jnp.int32)
        size = jnp.where(size < _NORMAL, small, (jnp.minimum(size, _END) - _APART) << 3)
    return jnp.where(bits < 0, -size, size)


_TO_EVEN = lax.RoundingMethod.TO_NEAREST_EVEN


def of_half(p: jax.Array) -> jax.Array:
    """The word of a bfloat16 or float16."""
    bits = lax.bitcast_convert_type(p, jnp.int16).astype(jnp.int32)
    size = (bits & 0x7FFF) << 16
    return jnp.where(bits < 0, -size, size)


def value(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The float32 of a word. float16's infinite word stands for 2^16."""
    size = jnp.abs(word)
    if dtype == jnp.float16:
        small = lax.bitcast_convert_type(size.astype(jnp.float32) * 2.0**-40, jnp.int32)
        size = jnp.where(size < 1 << 26, small, (size >> 3) + _APART)
    return lax.bitcast_convert_type(size | (word & jnp.int32(-(2**31))), jnp.float32)


def half(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The bfloat16 or float16 of a word whose lower half is zero."""
    bits = (jnp.abs(word) >> 16) | ((word >> 16) & 0x8000)
    return lax.bitcast_convert_type(bits.astype(jnp.uint16), dtype)


def is_finite(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Whether a word stands for a number in the range of `dtype`."""
    return jnp.abs(word) < _INFINITE[dtype]


def randomly(word: jax.Array, bits: jax.Array, kept: int) -> jax.Array:
    """`word` rounded stochastically to the upper `kept` of its lower 16 bits, with expectation
    `word`: adding random bits to the dropped ones carries with the right probability."""
    rest = (1 << (16 - kept)) - 1
    return (word + lax.shift_right_logical(bits, jnp.uint32(16 + kept)).astype(jnp.int32)) & ~rest


def nearest(word: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """The nearest word whose lower half is zero, and the remainder, in 16 bits.

    Ties go up. Finite words stay finite: they are clipped to the largest number of `dtype`.
    """
    largest = _INFINITE[dtype] - (1 << 16)
    word = lax.clamp(jnp.int32(-largest - 0x8000), word, jnp.int32(largest + 0x7FFF))
    upper = (word + 0x8000) & ~0xFFFF
    return upper, word - upper
