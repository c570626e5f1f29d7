# SPDX-License-Identifier: Apache-2.0
"""A square and a mean in one byte."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from adamx.storage.means import Ratios
from adamx.storage.squares import Squares


class Pair(NamedTuple):
    """A code of squares and a code of means, with fewer than 256 combinations: 255 is NaN.

    The smallest square with a zero mean stands for zero in both, the initial value.
    """

    squares: Squares
    means: Ratios

    def join(self, square: jax.Array, mean: jax.Array) -> jax.Array:
        """Both codes as one number from 0 to 255."""
        nan = (square == self.squares.nan) | (mean == self.means.nan)
        joined = (jnp.maximum(square, 1) - 1) * self._width + mean + self.means.count
        return jnp.where(nan, _NAN, joined)

    def split(self, joined: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The codes of the square and of the mean."""
        square = (joined * self._inverse) >> 16
        square, mean = square + 1, joined - square * self._width - self.means.count
        square = jnp.where((square == 1) & (mean == 0), 0, square)
        nan = joined == _NAN
        return jnp.where(nan, self.squares.nan, square), jnp.where(nan, self.means.nan, mean)

    @property
    def _inverse(self) -> int:
        """65536 / width, rounded up: (byte * this) >> 16 is byte // width, without a division."""
        return -(-65536 // self._width)

    @property
    def _width(self) -> int:
        return 2 * self.means.count + 1


_NAN = 255
