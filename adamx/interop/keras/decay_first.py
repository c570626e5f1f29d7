# SPDX-License-Identifier: Apache-2.0
"""Decay that is taken off the parameters before the link behind it sees them, as in Keras."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, hyperparameters
from adamx.core.hyperparameters import Hyper
from adamx.core.values import value
from adamx.transforms.learning_rate import Descend
from adamx.transforms.weight_decay import Mask, decoupled, pull


@value
class DecayFirst:
    """`link`, given decayed parameters; emits at least float32, before the learning rate.

    With the rate r and the decay w p of each leaf, `link` sees p - r w p, and w p is added to what
    it makes of the updates. Its state counts steps where the rate is a schedule.
    """

    link: Any
    decay: Any
    learning_rate: Hyper

    @classmethod
    def of(cls, link: Any, strength: float | None, mask: Mask | None, learning_rate: Hyper) -> Any:
        """The link itself where nothing decays."""
        if strength is None:
            if mask is not None:
                raise ValueError("`mask` says which leaves decay: give `weight_decay` too")
            return link
        hyperparameters.check(strength=strength)
        return cls(link, pull(decoupled(strength), mask), learning_rate)

    def init(self, params: optax.Params) -> Any:
        return self._rate.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        rate, state = self._rate.rate(state, extra)
        nothing = jax.tree.map(jnp.zeros_like, updates)
        pulled, _ = self.decay.update(nothing, self.decay.init(params), params, **extra)

        def decayed(p: Any, w: Any) -> Any:
            w = jnp.asarray(w)
            return dtypes.widen(p).astype(w.dtype) - w * jnp.asarray(rate).astype(w.dtype)

        updates, _ = self.link.update(
            updates, optax.EmptyState(), jax.tree.map(decayed, params, pulled), **extra
        )
        return jax.tree.map(jnp.add, updates, pulled), state

    @property
    def _rate(self) -> Descend:
        return Descend(self.learning_rate, flip_sign=False)
