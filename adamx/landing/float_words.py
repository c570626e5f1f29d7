# SPDX-License-Identifier: Apache-2.0
"""Numbers as 32-bit words: the upper half is a bfloat16 or float16, the lower the bits below it.

A word is a sign and a size, as the bits of a float are. So rounding and carrying are integer
arithmetic, the same for both dtypes. No compiler removes this rounding, while XLA may skip a cast
of a float32 to bfloat16 and back.

A bfloat16 is the upper half of a float32, so its words are float32's own bits. A float16 has three
exponent bits fewer: between 2^-14 and 65504 a word is float32's bits shifted up by three, below
that a multiple of 2^-40. Every float32 of at least 2^-17 has a word; smaller ones are rounded.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

HALVES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))

# In float32's bits: 2^-14, the smallest normal float16; 2^16, the end of its range; and the
# difference of the two exponent biases.
_NORMAL, _END, _APART = 113 << 23, 143 << 23, 112 << 23
_SIGN, _SIZE = np.int32(-(2**31)), np.int32(2**31 - 1)


def of(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The word of a float32; that of infinity for overflow of float16, and for its NaN."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    if dtype != jnp.float16:
        return bits
    size = bits & _SIZE
    small = lax.round(jnp.minimum(jnp.abs(x), 2.0**-14) * 2.0**40, _TO_EVEN).astype(jnp.int32)
    size = jnp.where(size < _NORMAL, small, (jnp.minimum(size, _END) - _APART) << 3)
    return size | (bits & _SIGN)


_TO_EVEN = lax.RoundingMethod.TO_NEAREST_EVEN


def of_half(p: jax.Array) -> jax.Array:
    """The word of a bfloat16 or float16."""
    if p.dtype != jnp.float16:
        return lax.bitcast_convert_type(p.astype(jnp.float32), jnp.int32)
    return lax.bitcast_convert_type(p, jnp.int16).astype(jnp.int32) << 16


def value(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The float32 of a word. float16's infinite word stands for 2^16."""
    if dtype == jnp.float16:
        size = word & _SIZE
        small = lax.bitcast_convert_type(size.astype(jnp.float32) * 2.0**-40, jnp.int32)
        word = jnp.where(size < 1 << 26, small, (size >> 3) + _APART) | (word & _SIGN)
    return lax.bitcast_convert_type(word, jnp.float32)


def lower(word: jax.Array, drop: int, dtype: jnp.dtype) -> jax.Array:
    """The lower half of `word` without its lowest `drop` bits, for `with_lower`.

    The sum of 0 and -0 is 0, so a float16 of zero leaves its sign to the lower half. A bfloat16
    does not: what is below the smallest one is no number that XLA keeps.
    """
    if dtype != jnp.float16:
        return word >> drop
    size = word & _SIZE
    return jnp.where((size < 0x8000) & (word < 0), -(size >> drop), word >> drop)


def with_lower(p: jax.Array, low: jax.Array) -> jax.Array:
    """The float32 of the word of `p` plus `low`; of `p` alone where that makes no number.

    A parameter that was set to zero from outside may have a `low` below zero. A bfloat16 that was
    rounded up to infinity still has its finite weight.
    """
    word, plain = of_half(p), p.astype(jnp.float32)
    if p.dtype != jnp.float16:
        found = value(word + low, p.dtype)  # below zero, the bits are those of a NaN
        return jnp.where(jnp.isnan(found), plain, found)
    word = jnp.where(word & _SIZE == 0, jnp.abs(low) | low & _SIGN, word + low)
    return jnp.where(jnp.isfinite(plain), value(word, p.dtype), plain)


def half(word: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The bfloat16 or float16 in the upper half of a word."""
    return lax.bitcast_convert_type((word >> 16).astype(jnp.int16), dtype)


def randomly(word: jax.Array, bits: jax.Array, kept: int) -> jax.Array:
    """`word` with random bits added below the upper `kept` of its lower 16: what is above them is
    then rounded stochastically, with expectation `word`."""
    return word + lax.shift_right_logical(bits, np.int32(16 + kept))


def upper(word: jax.Array) -> jax.Array:
    """`word` without its lower half."""
    return word & ~0xFFFF


def nearest(word: jax.Array) -> jax.Array:
    """The nearest word whose lower half is zero. Ties go up in size."""
    return upper(word + 0x8000)
