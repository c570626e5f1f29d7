# SPDX-License-Identifier: Apache-2.0
"""One optimizer at many learning rates and seeds at once: all runs are one compiled program."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.cli.recipes import RECIPES
from adamx.cli.tasks import Task

# Those that Adam came from, by name; the family is ours.
OTHERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
}
OPTIMIZERS = (*OTHERS, *RECIPES)


class Sweep(NamedTuple):
    """What was reached, by learning rate and seed.

    Attributes:
      rates: the learning rates.
      scores: of each figure an array of rates x seeds; NaN where a run broke down.
    """

    rates: np.ndarray
    scores: dict[str, np.ndarray]

    @property
    def best(self) -> int:
        """The rate with the least mean held-out loss; one that broke down for a seed is none."""
        losses = self.scores["test loss"].mean(1)
        return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))

    @property
    def trains(self) -> np.ndarray:
        """At which rates every seed ends within twice the best loss."""
        losses = self.scores["test loss"]
        with np.errstate(invalid="ignore"):
            return np.all(losses <= 2 * losses[self.best].mean(), axis=1)


def sweep(name: str, tasks: Sequence[Task], rates: np.ndarray, steps: int) -> Sweep:
    """Trains every task, one for each seed, at every rate, all on the batches of their own."""
    build = OTHERS.get(name) or getattr(adamx, name)
    params = _stacked([task.params for task in tasks])
    batches = _stacked([_stacked([t.batch(i) for i in range(steps)]) for t in tasks])

    def trained(rate: jax.Array, params: Any, batches: Any) -> Any:
        opt = build(rate)

        def step(carry: Any, batch: Any) -> tuple[Any, None]:
            params, state = carry
            grads = jax.grad(tasks[0].loss)(params, batch)
            return adamx.step(opt, grads, state, params), None

        (params, _), _ = jax.lax.scan(step, (params, opt.init(params)), batches)
        return params

    over_seeds = jax.vmap(trained, (None, 0, 0))
    reached = jax.jit(jax.vmap(over_seeds, (0, None, None)))(jnp.float32(rates), params, batches)
    scores: dict[str, list[list[float]]] = {}
    for i, j in itertools.product(range(len(rates)), range(len(tasks))):
        found = tasks[j].scores(jax.tree.map(lambda x, i=i, j=j: x[i, j], reached))
        for figure, value in found.items():
            column = scores.setdefault(figure, [[] for _ in rates])
            column[i].append(float(value))
    return Sweep(rates, {k: _finite(np.array(v)) for k, v in scores.items()})


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)
