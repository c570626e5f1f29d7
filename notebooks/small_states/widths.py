# SPDX-License-Identifier: Apache-2.0
"""Codes of every width, to see where the limit is: 3 + 3 bits, 4 + 4 and so on up to 8 + 8.

The same codes as `int4`'s and `int8`'s, with other counts, resting in a byte each: what a width
costs a run does not depend on how its bits are packed.
"""

import dataclasses
from typing import Any

from adamx.core.rule import is_signed
from adamx.storage.compact import RATIOS, SQUARES, Compact
from adamx.storage.means import Ratios
from adamx.storage.squares import Squares
from adamx.storage.storage import Kinds


@dataclasses.dataclass(frozen=True)
class Width(Compact):
    """A square and its mean in codes of these counts, for Adam's two moments."""

    squares: Squares = SQUARES
    ratios: Ratios = RATIOS

    def _books(self, kinds: Kinds) -> dict[str, Any]:
        return {k: self.ratios if is_signed(kind) else self.squares for k, kind in kinds.items()}


# Zero and NaN have codes of their own among the squares, NaN among the means.
WIDTHS = {
    width.name: width
    for width in (
        Width("3+3", squares=Squares(7, -26, 4), ratios=Ratios(3, 0.7, 0.8)),
        Width("4+4", squares=Squares(14, -26, 4), ratios=Ratios(7, 0.7, 0.8)),
        Width("5+5", squares=Squares(30, -28, 8), ratios=Ratios(15, 0.5)),
        Width("6+6", squares=Squares(62, -28, 8), ratios=Ratios(31, 0.35)),
        Width("7+7", squares=Squares(126, -28, 8), ratios=Ratios(63, 0.25)),
    )
}
