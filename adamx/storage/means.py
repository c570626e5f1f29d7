# SPDX-License-Identifier: Apache-2.0
"""Means as small integers: their sign, and their size relative to a unit.

A step uses a mean m as m / sqrt(v). So the unit is a fixed part of the stored root, and the size is
the cut of |m| + unit: fine at fractions of the root, where means are, and coarser for larger ones.
The rounding error is an error of the step itself, and no scale is stored. By Cauchy-Schwarz
|m| / sqrt(v) <= (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)), 7.27 for the defaults.

A mean without a square, as in Lion, has a constant unit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx.storage.cuts import bits_below, number, upper, word


class Means(NamedTuple):
    """A code of numbers of either sign: the cut size, and the bits of `minus` if negative.

    Attributes:
      drop: the number of bits that are cut off; 19 leaves 4 of a mantissa.
      count: the largest cut size, a power of two less one; larger numbers are clipped to it.
      part: the unit, as a part of the root.
      minus: the bit above `count`; -128 is the one of an int8.
    """

    drop: int
    count: int
    part: float
    minus: int = -128

    def encode(self, mean: jax.Array, unit: ArrayLike, noise: jax.Array) -> jax.Array:
        """The int32 code of `mean`, rounded stochastically with expectation `mean`.

        `unit` has no bits below the cut, so that zero is exact.
        """
        above = word(lax.abs(mean) + unit) - word(unit) + bits_below(self.drop, noise)
        size = lax.min(upper(above, self.drop), np.int32(self.count))
        return size | (word(mean) >> 31) & self.minus

    def decode(self, code: jax.Array, unit: ArrayLike) -> jax.Array:
        """The number with this int32 code, whatever its other bits."""
        size = number(((code & self.count) << self.drop) + word(unit)) - unit
        sign = code if self.minus < 0 else code << (32 - self.minus.bit_length())
        return number(word(size) | sign & _SIGN)


_SIGN = -(2**31)


class Alone(NamedTuple):
    """A code of numbers of either sign with a constant unit; minus zero is what is not finite."""

    means: Means

    def encode(self, mean: jax.Array, noise: jax.Array) -> jax.Array:
        """The int32 code of `mean`, rounded stochastically with expectation `mean`."""
        code = self.means.encode(mean, np.float32(self.means.part), noise)
        code = jnp.where(code == self.means.minus, 0, code)
        return jnp.where(jnp.isfinite(mean), code, self.means.minus)

    def decode(self, code: jax.Array) -> jax.Array:
        """The number with this int32 code."""
        mean = self.means.decode(code, np.float32(self.means.part))
        return jnp.where(code == self.means.minus, jnp.nan, mean)


MEANS = Means(19, 127, 2.0**-5)  # up to 7.6 roots at least
ALONE = Alone(Means(21, 127, 2.0**-25))  # up to 112
