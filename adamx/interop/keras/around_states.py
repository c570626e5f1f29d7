# SPDX-License-Identifier: Apache-2.0
"""The states around a recipe: accumulated gradients, averages, and Nadam's product of momenta."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import dtypes, paths
from adamx.core.instances import instances
from adamx.interop.keras.average import AverageState
from adamx.interop.keras.slots import Kept, Slot


class Counted(NamedTuple):
    """How many gradients a run has had, and how many make a step."""

    gradients: int
    per_step: int

    @property
    def steps(self) -> int:
        """The steps that were taken."""
        return self.gradients // self.per_step

    @property
    def pending(self) -> int:
        """The gradients that wait for their step."""
        return self.gradients % self.per_step


def put(state: Any, found: Mapping[Slot, np.ndarray], counted: Counted) -> Any:
    """`state` with Keras' averages and accumulated gradients, of which ours keeps the mean."""

    def one(x: Any) -> Any:
        if isinstance(x, AverageState):
            average = _filled(x.average, lambda leaf: found[Slot("average", leaf)])
            count = jnp.full_like(x.count, counted.gradients)
            return AverageState(put(x.inner, found, counted), count, average)
        if isinstance(x, optax.MultiStepsState):
            share = max(counted.pending, 1)
            means = _filled(x.acc_grads, lambda leaf: found[Slot("accumulator", leaf)] / share)
            return x._replace(
                mini_step=jnp.full_like(x.mini_step, counted.pending),
                gradient_step=jnp.full_like(x.gradient_step, counted.steps),
                inner_opt_state=put(x.inner_opt_state, found, counted),
                acc_grads=means,
            )
        return x

    return jax.tree.map(one, state, is_leaf=lambda x: isinstance(x, _AROUND))


def taken(state: Any, steps: int) -> tuple[dict[Slot, np.ndarray], int | None]:
    """Averages and accumulated gradients as Keras has them, and how many gradients there were."""
    found: dict[Slot, np.ndarray] = {}
    gradients = None
    for x in instances(state, *_AROUND):
        if isinstance(x, AverageState):
            found |= {Slot("average", k): v for k, v in _named(x.average)}
            inner, _ = taken(x.inner, steps)
            found, gradients = found | inner, int(x.count)
        else:
            share = int(x.mini_step)
            found |= {Slot("accumulator", k): share * v for k, v in _named(x.acc_grads)}
    return found, gradients


def pending(state: Any) -> int:
    """How many gradients wait for their step."""
    waiting = [
        pending(x.inner) if isinstance(x, AverageState) else int(x.mini_step)
        for x in instances(state, *_AROUND)
    ]
    return max(waiting, default=0)


def momentum_product(kept: Kept, steps: int) -> float | None:
    """The product of Nadam's momenta after so many steps; None where it is not known."""
    hyper = next(iter(kept.rules.values())).hyper
    b1, psi = hyper["b1"], hyper["momentum_decay"]
    if not (isinstance(b1, int | float) and isinstance(psi, int | float)):
        return None
    t = np.arange(1, steps + 1, dtype=np.float64)
    return float(np.prod(b1 * (1 - 0.5 * 0.96 ** (t * psi))))


_AROUND = (AverageState, optax.MultiStepsState)


def _filled(tree: Any, value: Callable[[str], Any]) -> Any:
    return paths.mapped(lambda name, x: dtypes.cast(dtypes.widen(value(name)), x.dtype), tree)


def _named(tree: Any) -> list[tuple[str, np.ndarray]]:
    return [(paths.name(path), np.asarray(leaf)) for path, leaf in paths.flatten(tree)[0]]
