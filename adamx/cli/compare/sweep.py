# SPDX-License-Identifier: Apache-2.0
"""One optimizer at many learning rates and seeds, in one compiled program."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.cli.names import RECIPES
from adamx.cli.tasks import Task

# Adam's predecessors, from Optax; the Adam family is ours.
OTHERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
}
OPTIMIZERS = (*OTHERS, *RECIPES)
HELD_OUT = "held-out loss"


class Sweep(NamedTuple):
    """The results by learning rate and seed.

    Attributes:
      rates: the learning rates.
      scores: an array of rates x seeds for each figure; NaN where a run diverged. `HELD_OUT` is
        always among them.
    """

    rates: np.ndarray
    scores: dict[str, np.ndarray]

    @property
    def best(self) -> int:
        """The index of the rate with the least mean held-out loss; a NaN excludes the rate."""
        losses = self.scores[HELD_OUT].mean(1)
        return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))

    @property
    def trains(self) -> np.ndarray:
        """For each rate, whether every seed ends within twice the best loss."""
        losses = self.scores[HELD_OUT]
        with np.errstate(invalid="ignore"):
            best = losses[self.best].mean()
            return np.all(losses <= best + abs(best), axis=1)


def sweep(name: str, tasks: Sequence[Task], rates: np.ndarray, steps: int) -> Sweep:
    """Trains every task (one per seed) on its own batches, at every rate."""
    build = OTHERS.get(name) or getattr(adamx, name)
    params = _stacked([task.params for task in tasks])
    batches = _stacked([_stacked([t.batch(i) for i in range(steps)]) for t in tasks])

    def trained(rate: jax.Array, params: Any, batches: Any, key: jax.Array) -> Any:
        opt = build(rate)

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            (params, state), (batch, key) = carry, now
            drawn = {"key": key} if tasks[0].random else {}
            grads = jax.grad(tasks[0].loss)(params, batch, **drawn)
            return adamx.step(opt, params, state, grads), None

        along = batches, jax.random.split(key, steps)
        (params, _), _ = jax.lax.scan(step, (params, opt.init(params)), along)
        return params

    keys = jax.random.split(jax.random.key(0), len(tasks))
    over_seeds = jax.vmap(trained, (None, 0, 0, 0))
    over_both = jax.jit(jax.vmap(over_seeds, (0, None, None, None)))
    reached = over_both(jnp.float32(rates), params, batches, keys)
    scores: dict[str, list[list[float]]] = {}
    for i, j in itertools.product(range(len(rates)), range(len(tasks))):
        one = jax.tree.map(lambda x, i=i, j=j: x[i, j], reached)
        found = {HELD_OUT: tasks[j].glance(one)} | tasks[j].scores(one)
        for figure, value in found.items():
            column = scores.setdefault(figure, [[] for _ in rates])
            column[i].append(float(value))
    return Sweep(rates, {k: _finite(np.array(v)) for k, v in scores.items()})


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)
