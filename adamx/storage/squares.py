# SPDX-License-Identifier: Apache-2.0
"""Squares as small integers: a few numbers an octave, rounded so that steps are unbiased.

Why not simply without bias in v? A step divides by sqrt(v). Rounding that keeps the expectation of
v^p gives log v a variance s^2, and 1 / sqrt(v) is too large by (4 p - 1) s^2 / 8 on average: with
p = 1 every step is too long, by 3% at four numbers an octave; with p = 1/4 none is. Where numbers
are a factor 1 + d apart, p = 1/4 rounds up from the part t of the way between two of them with the
chance t + 3/8 d t (1 - t). `leaning` takes 1/16 for 3/8 d, its value amid an octave, and
min(t, 1 - t) for t (1 - t), as squares move by small parts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adamx.storage.cuts import Cut, bits_of, pick
from adamx.storage.means import MEANS


class Squares(NamedTuple):
    """A code of numbers x >= 0: the cut of `x + least`, so that zero has the code 0.

    Positive numbers never have the code 0, so that a step which divides by them stays bounded.

    Attributes:
      cut: how `x + least` is cut; `least` is the number that it gives the code 0.
      units: the units of means, by the same codes: a part of the root.
      count: the last code of a number; the next one is for what is not finite.
    """

    cut: Cut
    units: Cut
    count: int = 254

    def encode(self, x: jax.Array, noise: jax.Array) -> jax.Array:
        """The int32 code of `x`, rounded stochastically; above `count` where `x` is too large."""
        code = self.cut.code(x + self.least, noise)
        return pick(x > 0, lax.max(code, np.int32(1)), code)

    def within(self, code: jax.Array) -> jax.Array:
        """A code as it is stored: at most `count`, and the next for what is not finite."""
        most = lax.min(code, np.int32(self.count))
        return pick(not_finite(code, self.cut), self.count + 1, most)

    def decode(self, code: jax.Array) -> jax.Array:
        """The number with this int32 code."""
        return pick(code > self.count, jnp.nan, self.cut.number(code) - self.least)

    def nearest(self, x: float) -> int:
        """The code of a Python number."""
        code = self.cut.nearest(x + float(self.least))
        return min(max(code, int(x > 0)), self.count)

    @property
    def least(self) -> np.float32:
        return np.int32(self.cut.first).view(np.float32)


def not_finite(code: jax.Array, cut: Cut) -> jax.Array:
    """Whether a code of `cut`, as `encode` makes it, is that of infinity or NaN."""
    return code >= (bits_of(np.inf) - cut.first) >> cut.drop


def leaning(noise: jax.Array) -> jax.Array:
    """Uniform noise h as h + min(h, 1 - h) / 16: it rounds up a little more often."""
    return noise + (lax.max(noise, ~noise) >> 4)  # of int32s, the larger is the nearer to 0


# Roots from 1.5e-8 to 110, 6% to 12% apart. Below, they act like an epsilon; above, both moments
# are clipped by the same factor, which keeps their ratio, the step. Maxima are four times as large.
_SQUARES, _SIZES = Cut(21, bits_of(2.0**-50)), Cut(20, bits_of(2.0**-23))
SQUARES = Squares(_SQUARES, _SQUARES.roots.times(MEANS.part))
MAGNITUDES = Squares(_SIZES, _SIZES.times(MEANS.part))
