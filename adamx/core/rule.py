# SPDX-License-Identifier: Apache-2.0
"""What a rule is: one paper's formula on one array, and the names of what it remembers.

A rule is split in two, so that what depends on the step alone is computed once for a whole tree:

    scalars            = rule.at(t, **hyper)                         # bias corrections and such
    direction, moments = rule.formula(g, **moments, **scalars)       # elementwise, per leaf

`t` counts from 1. A rule never sees a pytree, a dtype at rest or a device.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
from jax.typing import ArrayLike

from adamx.core.hyperparameters import Hyper

# A mean of gradients, one of gradients already divided by their root, a mean of squares, a maximum
# of |g|: a storage picks its code by kind.
Kind = Literal["signed", "normalised", "squared", "magnitude"]


def is_signed(kind: Kind) -> bool:
    """Whether a moment of this kind has a sign, or is complex where gradients are."""
    return kind in ("signed", "normalised")


class Rule(NamedTuple):
    """One optimizer's arithmetic.

    Attributes:
      name: what errors call it.
      state: the state's class, with a field for `count` and one for each moment.
      moments: the kind of each moment, by name.
      hyper: the hyperparameters by name: numbers, arrays or schedules.
      at: `(t, **hyper) -> scalars`, everything that depends on the step alone.
      formula: `(g, **moments, **scalars) -> (direction, moments)`.
      count: the name of the step counter in the state.
      start: what a moment begins with, where that is not zero.
    """

    name: str
    state: Callable[..., Any]
    moments: Mapping[str, Kind]
    hyper: Mapping[str, Hyper]
    at: Callable[..., dict[str, jax.Array]]
    formula: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    count: str = "count"
    start: Mapping[str, ArrayLike] = {}
