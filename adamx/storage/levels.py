# SPDX-License-Identifier: Apache-2.0
"""Nearly logarithmic float32 levels, computed by integer arithmetic on their bits.

Level k is the float32 whose bits are `first + (k - 1) * stride`. Levels are evenly spaced within an
octave and nearly logarithmic across octaves. No table, no logarithm, no exponential.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Levels(NamedTuple):
    """Levels 1 to `count`, from `lowest` to about `highest`, both positive."""

    count: int
    lowest: float
    highest: float

    def at(self, level: jax.Array) -> jax.Array:
        """The number at `level`, an int32 of at least 1."""
        return lax.bitcast_convert_type(self._first + (level - 1) * self._stride, jnp.float32)

    def below(self, x: jax.Array) -> jax.Array:
        """The highest level not above `x`, clipped to 1 and `count` - 1.

        The quotient is rounded to float32, so an `x` next to a level may fall on either side.
        """
        word = lax.bitcast_convert_type(x, jnp.int32) - self._first
        steps = jnp.floor(word.astype(jnp.float32) * np.float32(1 / self._stride))
        return jnp.clip(steps.astype(jnp.int32), 0, self.count - 2) + 1

    def nearest(self, x: float) -> int:
        """The level nearest to `x > 0`, a Python number."""
        steps = round((_word(x) - self._first) / self._stride)
        return min(max(steps, 0), self.count - 1) + 1

    @property
    def _first(self) -> int:
        return _word(self.lowest)

    @property
    def _stride(self) -> int:
        return (_word(self.highest) - self._first) // (self.count - 1)


def rises(x: jax.Array, low: jax.Array, high: jax.Array, bits: jax.Array) -> jax.Array:
    """Whether to round `x` up from `low` to `high`, stochastically with expectation `x`."""
    return unit(bits) * (high - low) < x - low


def unit(bits: jax.Array) -> jax.Array:
    """32 random bits as a float32 in [0, 1)."""
    return lax.shift_right_logical(bits, jnp.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)


def _word(x: float) -> int:
    if not math.isfinite(x) or x < np.finfo(np.float32).tiny:
        raise ValueError(f"a level must be a positive normal float32 number, got {x}")
    return int(np.float32(x).view(np.int32))
