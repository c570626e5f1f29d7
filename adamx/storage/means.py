# SPDX-License-Identifier: Apache-2.0
"""Means as small integers: relative to the stored root, or standalone.

A step uses a mean m as m / sqrt(v). So the code holds the ratio r of m to the stored root, under
the softsign r / (knee + |r|): fine at fractions of one, where ratios are, and coarser for larger
ones. The rounding error is an error of the step itself, and no scale is needed.

A mean without a square, as in Lion, is stored as its sign and a logarithm of its size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.storage.levels import Levels, rises, unit


class Ratios(NamedTuple):
    """A code of numbers relative to a scale: -`count` to `count`, 0 for zero, one below for NaN.

    Attributes:
      count: the number of positive ratios.
      knee: the ratio at the middle code.
      end: the distance from the last code to an infinite ratio, in codes.
    """

    count: int
    knee: float
    end: float = 1.0

    @property
    def nan(self) -> int:
        return -self.count - 1

    def decode(self, code: jax.Array, scale: jax.Array) -> jax.Array:
        """The number that `code`, an int32, stands for at this `scale`."""
        left = self._ends - jnp.abs(code).astype(jnp.float32)
        mean = self.knee * code.astype(jnp.float32) * reciprocal(left) * scale
        return jnp.where(code == self.nan, jnp.nan, mean)

    def encode(self, mean: jax.Array, scale: jax.Array, bits: jax.Array) -> jax.Array:
        """The int32 code of `mean`, rounded stochastically with expectation `mean`.

        With N = count + end, code k stands for the ratio knee k / (N - k). Multiplied by the
        denominators, the comparison that rounds k up to k + 1 needs no division.
        """
        size, knee = jnp.abs(mean), self.knee * scale
        code = jnp.clip(jnp.floor(size / (size + knee) * self._ends), 0, self.count - 1)
        left = self._ends - code
        passed = (size * left - knee * code) * (left - 1)
        code = jnp.where(unit(bits) * (knee * self._ends) < passed, code + 1, code)
        return _signed(code.astype(jnp.int32), mean, self.nan)

    @property
    def _ends(self) -> float:
        return self.count + self.end


class Alone(NamedTuple):
    """A code of numbers without a scale: -`count` to `count`, 0 for zero, one below for NaN.

    Attributes:
      count: the number of positive numbers.
      lowest: log2 of the smallest of them; smaller numbers are rounded to it or to zero.
      highest: log2 of the largest of them; larger numbers are clipped to it.
    """

    count: int
    lowest: float
    highest: float

    @property
    def nan(self) -> int:
        return -self.count - 1

    def decode(self, code: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """The number that `code`, an int32, stands for."""
        size = self._size(jnp.abs(code))
        return jnp.where(code == self.nan, jnp.nan, jnp.where(code < 0, -size, size))

    def encode(self, mean: jax.Array, scale: jax.Array | None, bits: jax.Array) -> jax.Array:
        """The int32 code of `mean`, rounded stochastically with expectation `mean`."""
        size = jnp.abs(mean)
        code = jnp.where(size < 2.0**self.lowest, 0, self._levels.below(size))
        low, high = self._size(code), self._size(code + 1)
        code = jnp.where(rises(size, low, high, bits), code + 1, code)
        return _signed(code, mean, self.nan)

    def _size(self, code: jax.Array) -> jax.Array:
        return jnp.where(code == 0, 0, self._levels.at(jnp.clip(code, 1, self.count)))

    @property
    def _levels(self) -> Levels:
        return Levels(self.count, 2.0**self.lowest, 2.0**self.highest)


def _signed(code: jax.Array, mean: jax.Array, nan: int) -> jax.Array:
    return jnp.where(jnp.isfinite(mean), jnp.where(mean < 0, -code, code), nan)


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x for positive normal float32 numbers, within one or two units in the last place.

    A first guess from the bits, then Newton's method. XLA:CPU recomputes multiplications at each
    use, but writes a division that is used twice to memory, as a temporary array.
    """
    y = lax.bitcast_convert_type(0x7EF311C3 - lax.bitcast_convert_type(x, jnp.int32), jnp.float32)
    for _ in range(3):
        y = y * (2 - x * y)
    return y
