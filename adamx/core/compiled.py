# SPDX-License-Identifier: Apache-2.0
"""Updates that compile themselves where nobody else compiles them.

Under a trace (`jit`, `scan`, `pmap` …) nothing here leaves a mark. Outside of one, an eager loop
costs one dispatch per step instead of several per leaf. All links share one jitted function: what
it has compiled is found again by JAX itself, from the value of the link.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.core import Tracer

from adamx.core import hyperparameters
from adamx.core.kernel_use import keeping_operands
from adamx.core.values import value


class Link(Protocol):
    """One part of a chain: a `value` with the two functions of an Optax transformation."""

    def init(self, params: Any) -> Any: ...

    def update(
        self, updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, Any]: ...


# `(directions, gradients) -> directions`, trees of the same structure; directions go uphill.
Change = Callable[[Any, Any], Any]


def modified(link: Any, change: Change) -> Any:
    """`link` with the directions of its rule changed; None where it has no rule of ours."""
    method = getattr(link, "modified", None)
    return None if method is None else method(change)


def transformation(link: Link) -> optax.GradientTransformationExtraArgs:
    """`link` as Optax knows transformations. Those of equal links are equal, which two methods of
    equal objects would not be."""
    return optax.GradientTransformationExtraArgs(Init(link), Update(link))


@value
class Init:
    """The `init` of a link."""

    link: Any

    def __call__(self, params: Any) -> Any:
        return self.link.init(params)


@value
class Update:
    """The `update` of a link."""

    link: Any

    def __call__(
        self, updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        return self.link.update(updates, state, params, **extra)


def compiled(
    link: Link, names: Iterable[str], hyper: Iterable[Any] = ()
) -> optax.GradientTransformationExtraArgs:
    """`link` as a transformation whose `update` compiles itself, and takes the extra arguments
    `names`.

    Where one of its hyperparameters is a schedule, compiled code is not shared with other links:
    what the schedule reads may have changed when the next one is built.
    """
    return transformation(Compiled(link, tuple(names), not any(map(callable, hyper))))


def shares(opt: Any) -> bool:
    """Whether an optimizer is one value of ours, which shares its compiled code with its equals."""
    update = getattr(opt, "update", None)
    return isinstance(update, Update) and getattr(update.link, "shares", False)


@value
class Compiled:
    """A link with an `update` that compiles itself and ignores unknown extra arguments."""

    link: Any
    names: tuple[str, ...]
    shares: bool = True

    def init(self, params: Any) -> Any:
        return self.link.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        known = self._known(extra)
        if not takes_compiling((self.link, updates, state, params, known)):
            return self.link.update(updates, state, params, **known)
        for name in {"b1", "b2", "b3"} & known.keys():  # 1 - b has to keep its digits
            if isinstance(known[name], float):
                known[name] = hyperparameters.Split.of(known[name])
        with keeping_operands():
            if self.shares:
                return _update(self.link, updates, state, params, known)
            return self._own_update(updates, state, params, known)

    def modified(self, change: Change) -> "Compiled | None":
        """As `modified`."""
        link = modified(self.link, change)
        return None if link is None else dataclasses.replace(self, link=link)

    def step(
        self, params: Any, state: Any, grads: Any, scale: Any = None, **extra: Any
    ) -> tuple[Any, Any] | None:
        """Update and apply at once, inside a trace, by links that can; None by others."""
        step = getattr(self.link, "step", None)
        return None if step is None else step(params, state, grads, scale, **self._known(extra))

    def _known(self, extra: dict[str, Any]) -> dict[str, Any]:
        known = {k: extra[k] for k in self.names if extra.get(k) is not None}
        hyperparameters.check(**known)
        hyperparameters.check_static(**known)
        return known

    @functools.cached_property
    def _own_update(self) -> Any:
        """A jitted function that is freed with this link."""
        return jax.jit(functools.partial(_plain, self.link))


def _plain(link: Link, updates: Any, state: Any, params: Any, extra: Any) -> tuple[Any, Any]:
    return link.update(updates, state, params, **extra)


_update = jax.jit(_plain)


def takes_compiling(args: Any) -> bool:
    """Whether there is something to compile: not under a trace, which does so itself, and not where
    a leaf is nothing that JAX takes, such as the activation functions of an Equinox model given as
    `params`, or a `value_fn` among the extra arguments."""
    samples = {type(x): x for x in jax.tree.leaves(args)}.values()  # a few types, many leaves
    return not any(isinstance(x, Tracer) or not isinstance(x, _ARRAYS) for x in samples)


_ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
