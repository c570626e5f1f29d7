# SPDX-License-Identifier: Apache-2.0
"""A chain with a landing at its end, whose other links see the weights that parameters stand for.

In `optax.chain` they would see the parameters, rounded as they are: a decay would pull at those.
"""

from collections.abc import Callable, Sequence
from typing import Any

import optax

from adamx.landing.master import master_params

# A landing is a link that ends a chain, or a function of a whole chain.
Landing = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


def ending(
    links: Sequence[optax.GradientTransformation], landing: Landing
) -> optax.GradientTransformationExtraArgs:
    """The chain of `links` that `landing` ends; its state has a part for each link, in order."""
    chain: Any = optax.chain(*links)
    if callable(landing):
        return optax.with_extra_args_support(landing(chain))
    last = optax.with_extra_args_support(landing)

    def init(params: optax.Params) -> Any:
        return (*chain.init(params), last.init(params))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        *held, owed = state
        weights = None if params is None else master_params(owed, params)
        updates, left = chain.update(updates, tuple(held), weights, **extra)
        updates, owed = last.update(updates, owed, params, **extra)
        return updates, (*left, owed)

    return optax.GradientTransformationExtraArgs(init, update)
