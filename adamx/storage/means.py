# SPDX-License-Identifier: Apache-2.0
"""Means as small integers: in proportion to the root beside them, or by themselves.

A mean m is worth what a step makes of it, m / sqrt(v). So what rests is its ratio to the root that
rests beside it, through the softsign r / (knee + |r|): fine where ratios are, at a fraction of one,
and ever coarser out to the last. The error is one of the step itself, and needs no scale.

A mean without a square, as in Lion, rests as its sign and a logarithm of its size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.storage.levels import Levels, rises, unit


class Ratios(NamedTuple):
    """A code of numbers beside a scale: -`count` to `count`, 0 for zero, one before them for NaN.

    Attributes:
      count: how many positive ratios there are.
      knee: the ratio in the middle of the codes.
      end: how far the last code stays from an infinite ratio, in codes.
    """

    count: int
    knee: float
    end: float = 1.0

    @property
    def nan(self) -> int:
        return -self.count - 1

    def decode(self, code: jax.Array, scale: jax.Array) -> jax.Array:
        """The number that `code`, an int32, stands for beside `scale`."""
        left = self._ends - jnp.abs(code).astype(jnp.float32)
        mean = self.knee * code.astype(jnp.float32) * reciprocal(left) * scale
        return jnp.where(code == self.nan, jnp.nan, mean)

    def encode(self, mean: jax.Array, scale: jax.Array, bits: jax.Array) -> jax.Array:
        """The code of `mean`, as an int32, such that `mean` is what is expected.

        Of N codes and an end, code k stands for the ratio knee k / (N - k). Times what stands
        below, the odds to go from k to k + 1 need no division.
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
    """A code of numbers of any size: -`count` to `count`, 0 for zero, one before them for NaN.

    Attributes:
      count: how many positive numbers there are.
      lowest: the smallest of them, as a power of two; a smaller one becomes it or zero.
      highest: the largest, likewise; larger ones become it.
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
        """The code of `mean`, as an int32, such that `mean` is what is expected."""
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
    """1 / x for positive normal float32 numbers, to a unit or two in the last place.

    A first guess by bits, then Newton. XLA:CPU computes multiplications where their result is used,
    but writes a division that is used twice to memory, as an array of its own.
    """
    y = lax.bitcast_convert_type(0x7EF311C3 - lax.bitcast_convert_type(x, jnp.int32), jnp.float32)
    for _ in range(3):
        y = y * (2 - x * y)
    return y
