# SPDX-License-Identifier: Apache-2.0
"""What each variable of a Keras optimizer is, in Keras' order.

    iteration, learning rate, averages, accumulated gradients, (mean, square) of each parameter,
    largest squares, momentum product

Only what an optimizer has is there: the learning rate if it is no schedule, the others as its
arguments ask for them. Keras saves nothing but this order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from adamx.core.instances import instances
from adamx.core.rule import Rule
from adamx.interop.keras.average import AverageState
from adamx.interop.trained import rules


class Slot(NamedTuple):
    """What one variable is.

    Attributes:
      kind: "iteration", "learning_rate", "average", "accumulator", "momentum_product", or the name
        of a moment.
      leaf: the parameter that it belongs to; empty if to none.
    """

    kind: str
    leaf: str = ""


class Kept(NamedTuple):
    """What an optimizer of ours keeps, as far as Keras has it too.

    Attributes:
      rules: the rule of each leaf that it trains, by name.
      averages: whether it keeps an average of the parameters.
      accumulates: whether it accumulates gradients.
    """

    rules: Mapping[str, Rule]
    averages: bool
    accumulates: bool

    @classmethod
    def by(cls, opt: optax.GradientTransformation, params: Any) -> "Kept":
        """What `opt` keeps for these parameters."""
        made = jax.eval_shape(opt.init, params)
        found = rules(opt, params)
        averages, waiting = instances(made, AverageState), instances(made, optax.MultiStepsState)
        return cls(found, bool(averages), bool(waiting))

    @property
    def warms_up(self) -> bool:
        """Whether the momentum warms up, as Nadam's."""
        return any("momentum_decay" in rule.hyper for rule in self.rules.values())


def slots(kept: Kept, order: Sequence[str], has_rate: bool) -> list[Slot]:
    """The variables of the Keras optimizer that keeps the same, for leaves in this order;
    `has_rate` tells whether the learning rate is among them."""
    found = [Slot("iteration"), *([Slot("learning_rate")] if has_rate else [])]
    for kind, there in (("average", kept.averages), ("accumulator", kept.accumulates)):
        found += [Slot(kind, leaf) for leaf in order] if there else []
    moments = [k for rule in kept.rules.values() for k in rule.moments]
    paired = [k for k in dict.fromkeys(moments) if k != "nu_max"]
    found += [Slot(k, leaf) for leaf in order for k in paired]
    found += [Slot("nu_max", leaf) for leaf in order] if "nu_max" in moments else []
    return found + ([Slot("momentum_product")] if kept.warms_up else [])
