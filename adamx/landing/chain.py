# SPDX-License-Identifier: Apache-2.0
"""A chain that ends with a landing and whose other links see the float32 weights.

In `optax.chain` they would see the rounded parameters, and weight decay would act on those.
"""

from collections.abc import Callable, Sequence
from typing import Any

import optax

from adamx.core.compiled import Change, modified, transformation
from adamx.core.links import Inside
from adamx.core.values import value
from adamx.landing.master import master_params

# A landing is a transformation that ends a chain, or a function of a whole chain.
Landing = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


def ending(
    links: Sequence[optax.GradientTransformation], landing: Landing
) -> optax.GradientTransformationExtraArgs:
    """The chain of `links` and `landing`; its state has a part for each link, in order."""
    return transformation(Ended(tuple(map(optax.with_extra_args_support, links)), landing))


@value
class Ended:
    """Links, followed by a landing."""

    links: tuple[Any, ...]
    landing: Any

    @property
    def parts(self) -> int:
        """The number of parts of the state."""
        return len(self.links) + (not callable(self.landing))

    def init(self, params: optax.Params) -> Any:
        chain = Links(self.links)
        if callable(self.landing):
            whole: Any = self.landing(transformation(chain))
            return whole.init(params)
        return (*chain.init(params), self._last.init(params))

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        chain = Links(self.links)
        if callable(self.landing):
            whole: Any = self.landing(transformation(chain))
            return optax.with_extra_args_support(whole).update(updates, state, params, **extra)
        *held, owed = state
        weights = None if params is None else master_params(owed, params)
        updates, left = chain.update(updates, tuple(held), weights, **extra)
        updates, owed = self._last.update(updates, owed, params, **extra)
        return updates, (*left, owed)

    def modified(self, change: Change) -> "Ended | None":
        """As `compiled.modified`."""
        for i, link in enumerate(self.links):
            found = modified(link, change)
            if found is not None:
                return Ended((*self.links[:i], found, *self.links[i + 1 :]), self.landing)
        return None

    def inside(self) -> list[Inside]:
        """The links, for tools that look into optimizers."""
        last = [] if callable(self.landing) else [self.landing]
        return [Inside((i,), link) for i, link in enumerate((*self.links, *last))]

    @property
    def _last(self) -> optax.GradientTransformationExtraArgs:
        """The landing, where it is a transformation."""
        return optax.with_extra_args_support(self.landing)


@value
class Links:
    """Links one after the other, as in `optax.chain`."""

    links: tuple[Any, ...]

    def init(self, params: optax.Params) -> Any:
        return tuple(link.init(params) for link in self.links)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        after = []
        for link, before in zip(self.links, state, strict=True):
            updates, now = link.update(updates, before, params, **extra)
            after.append(now)
        return updates, tuple(after)

    def inside(self) -> list[Inside]:
        """The links, for tools that look into optimizers."""
        return [Inside((i,), link) for i, link in enumerate(self.links)]
