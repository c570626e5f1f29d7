# SPDX-License-Identifier: Apache-2.0
"""What a rule is: one paper's formula on one array, and the names of its moments.

A rule has two functions, so that everything that depends on the step alone is computed once for a
whole tree:

    scalars            = rule.at(t, **hyper)                      # bias corrections and the like
    direction, moments = rule.formula(g, **moments, **scalars)    # elementwise, per leaf

`t` counts from 1. A rule never sees a pytree, a dtype in memory or a device.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
from jax.typing import ArrayLike

from adamx.core.hyperparameters import Hyper
from adamx.core.values import value

# A mean of gradients; one of gradients already divided by their root; one that forgets more slowly
# than the squares beside it, whose roots therefore do not bound it; a mean of squares, some seven
# roots of which bound the mean of gradients; one of which they do not, as that of squared distances
# from the mean; a largest square, which never falls; a decaying maximum of |g|. A storage chooses
# its code by kind.
Kind = Literal["signed", "normalised", "slow", "squared", "spread", "maximum", "magnitude"]


def is_signed(kind: Kind) -> bool:
    """Whether a moment of this kind has a sign, or is complex where gradients are."""
    return kind in ("signed", "normalised", "slow")


@value
class Rule:
    """One optimizer's arithmetic.

    `at` and `formula` are functions of a module, or `bind` of one, not closures: rules made alike
    are then equal, and share what JAX has compiled for them.

    Attributes:
      name: the name in error messages.
      state: the state's class, with a field for `count` and one for each moment.
      moments: the kind of each moment, by name.
      hyper: the hyperparameters by name: numbers, arrays or schedules.
      at: `(t, **hyper) -> scalars`, everything that depends on the step alone.
      formula: `(g, **moments, **scalars) -> (direction, moments)`.
      count: the name of the step counter in the state.
      start: the initial value of a moment, where that is not zero.
      counters: the names of further step counters in the state, each with the hyperparameters whose
        schedules it counts. `at` takes its value after the step as a keyword.
    """

    name: str
    state: Callable[..., Any]
    moments: Mapping[str, Kind]
    hyper: Mapping[str, Hyper]
    at: Callable[..., dict[str, jax.Array]]
    formula: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    count: str = "count"
    start: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
    counters: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def without_hyper(self) -> "Rule":
        """The rule without its hyperparameters, which `formula` never sees."""
        return dataclasses.replace(self, hyper={})
