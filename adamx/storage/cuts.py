# SPDX-License-Identifier: Apache-2.0
"""Numbers as small integers: the upper bits of a float32.

    code = (bits(y) + noise - first) >> drop        y = float((code << drop) + first)

Within an octave the bits of a float32 are linear in its value. So noise that is uniform below the
cut rounds without bias, and a number that has a code keeps it, whatever the noise. There is no
table, no logarithm and no comparison.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


class Cut(NamedTuple):
    """Positive numbers without their lowest bits.

    Attributes:
      drop: the number of bits that are cut off; 21 leaves 2 of a mantissa, 4 numbers an octave.
      first: the bits of the number with code 0.
    """

    drop: int
    first: int

    def code(self, y: jax.Array, noise: jax.Array) -> jax.Array:
        """The int32 code of `y`, rounded stochastically by 32 bits of `noise`."""
        bits = word(y) + (bits_below(self.drop, noise) - self.first)
        return upper(bits, self.drop)

    def number(self, code: jax.Array) -> jax.Array:
        """The number with this int32 code."""
        return number((code << self.drop) + self.first)

    def nearest(self, y: float) -> int:
        """The code of a Python number."""
        return (bits_of(y) - self.first + (1 << (self.drop - 1))) >> self.drop

    @property
    def roots(self) -> "Cut":
        """Nearly the roots of these numbers, by the same codes: half the bits.

        They are exact for powers of four, and up to 6% above the root between them.
        """
        return Cut(self.drop - 1, (self.first + bits_of(1.0)) >> 1)

    def times(self, part: float) -> "Cut":
        """These numbers times `part`; nearly so, if it is not a power of two."""
        return Cut(self.drop, self.first + bits_of(part) - bits_of(1.0))


def bits_below(drop: int, noise: jax.Array) -> jax.Array:
    """The upper bits of `noise`, as a number below 2^drop."""
    return upper(noise, 32 - drop)


def upper(bits: jax.Array, drop: int) -> jax.Array:
    """32 bits without the lowest `drop`."""
    return lax.shift_right_logical(bits, np.int32(drop))


def pick(which: jax.Array, yes: ArrayLike, no: jax.Array) -> jax.Array:
    """`jnp.where` for arrays of one shape; `yes` may be a number. It is cheaper to trace."""
    yes = lax.full_like(no, yes) if np.shape(yes) == () else yes
    return lax.select(which, yes, no)


def bits_of(x: float | np.floating) -> int:
    """The bits of a Python number as a float32."""
    return int(np.float32(x).view(np.int32))


def word(x: ArrayLike) -> jax.Array:
    """The bits of a float32 as an int32."""
    return lax.bitcast_convert_type(x, jnp.int32)


def number(word: jax.Array) -> jax.Array:
    """The float32 with these bits."""
    return lax.bitcast_convert_type(word, jnp.float32)
