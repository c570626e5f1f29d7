# SPDX-License-Identifier: Apache-2.0
"""Squares as small integers: a logarithmic code of their fourth root, rounded without bias in it.

A square is never zero by rounding and needs no scale. Why the fourth root? Where rounding by chance
keeps the expectation of v^p, log v wanders, with a variance s^2, and 1 / sqrt(v), which a step is
multiplied by, is too large by (4 p - 1) s^2 / 8 on average. To keep v itself (p = 1) makes every
step too long, by 13% where levels of the root are an octave apart; p = 1/4 makes none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.storage.levels import Levels, rises


class Squares(NamedTuple):
    """A code of non-negative numbers: 0 for zero, 1 to `count` for others, then one for NaN.

    Attributes:
      count: how many numbers there are beside zero.
      lowest: the smallest root, as a power of two.
      highest: the largest root, likewise; larger ones become it.
    """

    count: int
    lowest: float
    highest: float

    @property
    def nan(self) -> int:
        return self.count + 1

    def root(self, code: jax.Array) -> jax.Array:
        """The root of what `code`, an int32, stands for; the smallest one for code 0."""
        fourth = self._fourths.at(jnp.clip(code, 1, self.count))
        return fourth * fourth

    def decode(self, code: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """The square that `code` stands for."""
        root = self.root(code)
        return _marked(code, root * root, self.nan)

    def encode(self, square: jax.Array, old: jax.Array, bits: jax.Array) -> jax.Array:
        """The code of `square`, as an int32, where `old` was.

        What has not fallen does not fall by rounding either, so that a maximum stays one.
        """
        fourth = fourth_root(square)
        code = self._fourths.below(fourth)
        low, high = self._fourths.at(code), self._fourths.at(code + 1)
        code = jnp.where(rises(fourth, low, high, bits), code + 1, code)
        code = jnp.where(square >= self.decode(old), jnp.maximum(code, old), code)
        code = jnp.where(square == 0, 0, code)
        return jnp.where(jnp.isfinite(square), code, self.nan)

    def scale(self, code: jax.Array, square: jax.Array) -> jax.Array:
        """What a mean beside `code` is put in proportion to, where `square` was encoded.

        That is the root that rests. A square beyond the last code drags its mean down with it.
        """
        root = self.root(code)
        return jnp.where(code == self.count, jnp.maximum(root, square * lax.rsqrt(square)), root)

    def nearest(self, square: float) -> int:
        """The code of the number nearest to `square`, before any array is at hand."""
        return self._fourths.nearest(square**0.25) if square else 0

    @property
    def _fourths(self) -> Levels:
        return Levels(self.count, 2.0 ** (self.lowest / 2), 2.0 ** (self.highest / 2))


class Sizes(NamedTuple):
    """A code of magnitudes, as that of their squares."""

    squares: Squares

    @property
    def nan(self) -> int:
        return self.squares.nan

    def root(self, code: jax.Array) -> jax.Array:
        return self.squares.root(code)

    def decode(self, code: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        return _marked(code, self.root(code), self.nan)

    def encode(self, size: jax.Array, old: jax.Array, bits: jax.Array) -> jax.Array:
        within = jnp.clip(size, 2.0**-50, 2.0**60)  # or its square would be zero, or infinite
        square = jnp.where((size > 0) & jnp.isfinite(size), within * within, size)
        return self.squares.encode(square, old, bits)

    def scale(self, code: jax.Array, size: jax.Array) -> jax.Array:
        return self.squares.scale(code, size * size)

    def nearest(self, size: float) -> int:
        return self.squares.nearest(size * size)


def fourth_root(x: jax.Array) -> jax.Array:
    """The fourth root in float32, to some units in the last place, of what is above 2^-100.

    A first guess of its reciprocal by bits, then Newton. XLA:CPU computes multiplications again
    where another output needs them; what it takes for costly it writes to memory.
    """
    x = jnp.clip(x, 2.0**-100, 2.0**125)
    word = lax.bitcast_convert_type(x, jnp.int32) >> 2
    y = lax.bitcast_convert_type(_GUESS - word, jnp.float32)
    for _ in range(3):
        y = y * (1.25 - 0.25 * x * ((y * y) * (y * y)))
    return x * (y * y * y)


# Of the bits of x^(-1/4): 5/4 of those of 1, less what halves the worst error, to 3%.
_GUESS = 0x4F586000


def _marked(code: jax.Array, value: jax.Array, nan: int) -> jax.Array:
    return jnp.where(code == 0, 0, jnp.where(code == nan, jnp.nan, value))
