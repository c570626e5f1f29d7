# SPDX-License-Identifier: Apache-2.0
"""Squares as small integers: a logarithmic code of the fourth root, which is rounded without bias.

A square is never rounded to zero and needs no scale. Why the fourth root? Stochastic rounding that
keeps the expectation of v^p gives log v a variance s^2, and 1 / sqrt(v), a factor of each step, is
too large by (4 p - 1) s^2 / 8 on average. With p = 1, which keeps E[v], every step is too long, by
13% where levels of the root are an octave apart; with p = 1/4 none is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.storage.levels import Levels, rises


class Squares(NamedTuple):
    """A code of non-negative numbers: 0 for zero, 1 to `count` for others, then one for NaN.

    Attributes:
      count: the number of nonzero numbers.
      lowest: log2 of the smallest root.
      highest: log2 of the largest root; larger ones are clipped to it.
    """

    count: int
    lowest: float
    highest: float

    @property
    def nan(self) -> int:
        return self.count + 1

    def root(self, code: jax.Array) -> jax.Array:
        """The root that `code`, an int32, stands for; the smallest root for code 0."""
        fourth = self._fourths.at(jnp.clip(code, 1, self.count))
        return fourth * fourth

    def decode(self, code: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """The square that `code` stands for."""
        root = self.root(code)
        return _marked(code, root * root, self.nan)

    def encode(self, square: jax.Array, old: jax.Array, bits: jax.Array) -> jax.Array:
        """The int32 code of `square`, which replaces the code `old`.

        A square that has not decreased is not rounded below `old`, so a maximum never decreases.
        """
        fourth = fourth_root(square)
        code = self._fourths.below(fourth)
        low, high = self._fourths.at(code), self._fourths.at(code + 1)
        code = jnp.where(rises(fourth, low, high, bits), code + 1, code)
        code = jnp.where(square >= self.decode(old), jnp.maximum(code, old), code)
        code = jnp.where(square == 0, 0, code)
        return jnp.where(jnp.isfinite(square), code, self.nan)

    def scale(self, code: jax.Array, square: jax.Array) -> jax.Array:
        """The root that a mean is stored relative to, where `code` encodes `square`.

        This is the stored root. Above the last code it is the true root, which clips the mean by
        the same factor as the root.
        """
        root = self.root(code)
        return jnp.where(code == self.count, jnp.maximum(root, square * lax.rsqrt(square)), root)

    def nearest(self, square: float) -> int:
        """The code of the number nearest to `square`, a Python number."""
        return self._fourths.nearest(square**0.25) if square else 0

    @property
    def _fourths(self) -> Levels:
        return Levels(self.count, 2.0 ** (self.lowest / 2), 2.0 ** (self.highest / 2))


class Sizes(NamedTuple):
    """A code of magnitudes: the code of their squares."""

    squares: Squares

    @property
    def nan(self) -> int:
        return self.squares.nan

    def root(self, code: jax.Array) -> jax.Array:
        return self.squares.root(code)

    def decode(self, code: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        return _marked(code, self.root(code), self.nan)

    def encode(self, size: jax.Array, old: jax.Array, bits: jax.Array) -> jax.Array:
        within = jnp.clip(size, 2.0**-50, 2.0**60)  # else its square would be zero or infinite
        square = jnp.where((size > 0) & jnp.isfinite(size), within * within, size)
        return self.squares.encode(square, old, bits)

    def scale(self, code: jax.Array, size: jax.Array) -> jax.Array:
        return self.squares.scale(code, size * size)

    def nearest(self, size: float) -> int:
        return self.squares.nearest(size * size)


def fourth_root(x: jax.Array) -> jax.Array:
    """The fourth root of x >= 2^-100 in float32, within a few units in the last place.

    A first guess of its reciprocal from the bits, then Newton's method. XLA:CPU recomputes
    multiplications that another output needs; operations it considers costly it writes to memory.
    """
    x = jnp.clip(x, 2.0**-100, 2.0**125)
    word = lax.bitcast_convert_type(x, jnp.int32) >> 2
    y = lax.bitcast_convert_type(_GUESS - word, jnp.float32)
    for _ in range(3):
        y = y * (1.25 - 0.25 * x * ((y * y) * (y * y)))
    return x * (y * y * y)


# For the bits of x^(-1/4): 5/4 of those of 1.0, less an offset that halves the worst error, to 3%.
_GUESS = 0x4F586000


def _marked(code: jax.Array, value: jax.Array, nan: int) -> jax.Array:
    return jnp.where(code == 0, 0, jnp.where(code == nan, jnp.nan, value))
