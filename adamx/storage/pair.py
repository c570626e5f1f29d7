# SPDX-License-Identifier: Apache-2.0
"""A square and a mean in one byte, four bits each.

Squares are four octaves apart, roots two; between them a cut is nearly logarithmic, and for small
moves rounds by the fourth root. Means go up to 1.8 roots only, or smaller ones would be coarse:
the first hundred steps of a run with b2 = 0.999, which ask for up to 6, are too short by half.
The smallest square with a mean of zero stands for zero in both, the last byte for what is not
finite.
"""

import jax
import numpy as np
from jax import lax

from adamx.storage.cuts import Cut, bits_of, pick
from adamx.storage.means import Means
from adamx.storage.squares import not_finite

MEANS = Means(22, 7, 1.5 * 2.0**-3, minus=8)  # up to 1.8 roots
_LEAST = np.float32(2.0**-52)
SQUARES = Cut(25, bits_of(_LEAST))  # roots from 1.5e-8 to 16
UNITS = SQUARES.roots.times(MEANS.part)
NAN = 255


def code(square: jax.Array, noise: jax.Array) -> jax.Array:
    """The int32 code of a square, rounded stochastically; above 15 where it is too large."""
    return SQUARES.code(lax.max(square, _LEAST), noise)


def join(square: jax.Array, mean: jax.Array) -> jax.Array:
    """The byte of the codes of a square and a mean."""
    byte = lax.min(square, np.int32(15)) << 4 | mean
    return pick(not_finite(square, SQUARES), NAN, lax.min(byte, np.int32(NAN - 1)))


def square(byte: jax.Array) -> jax.Array:
    """The square in a byte."""
    return pick(byte == 0, 0, SQUARES.number(byte >> 4))


def nearest(square: float) -> int:
    """The byte of a square, a Python number, and a mean of zero."""
    return min(max(SQUARES.nearest(square), 0), 15) << 4 if square else 0
