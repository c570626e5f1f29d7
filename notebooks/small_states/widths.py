# SPDX-License-Identifier: Apache-2.0
"""Codes of every width, to see where the limit is: 3 + 3 bits, 4 + 4 and so on up to 8 + 8.

The same codes as those of `int8`, with fewer bits of the float left, stored in a byte each: what a
width costs a run does not depend on how its bits are packed.
"""

import dataclasses

from adamx.core.rule import Kind
from adamx.storage.compact import Compact
from adamx.storage.cuts import Cut, bits_of
from adamx.storage.means import MEANS, Means
from adamx.storage.squares import SQUARES, Squares


@dataclasses.dataclass(frozen=True)
class Width(Compact):
    """A square and its mean in codes of their own, for Adam's two moments."""

    squares: Squares = SQUARES
    means: Means = MEANS

    def _squares(self, kind: Kind) -> Squares:
        return self.squares

    @property
    def _means(self) -> Means:
        return self.means


def width(bits: int, means: Means) -> Width:
    """As many bits for a square as for a mean: half as many squares an octave for each one less."""
    cut = Cut(29 - bits, bits_of(2.0**-50))
    squares = Squares(cut, cut.roots.times(means.part), 2**bits - 2)
    return Width(f"{bits}+{bits}", squares=squares, means=means)


WIDTHS = {
    made.name: made
    for made in (
        width(3, Means(23, 3, 0.5)),
        width(4, Means(22, 7, 1.5 * 2.0**-3)),
        width(5, Means(22, 15, 2.0**-4)),
        width(6, Means(21, 31, 2.0**-5)),
        width(7, Means(20, 63, 2.0**-5)),
    )
}
