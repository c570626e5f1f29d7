# SPDX-License-Identifier: Apache-2.0
"""Several optimizers training one task on the same batches, one step each in turn."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.cli.progress import Report
from adamx.cli.tasks import Task


@dataclass
class Runner:
    """One optimizer on its way: what it has reached and what each step cost."""

    step: Callable[..., tuple[optax.Params, optax.OptState, jax.Array]]
    params: optax.Params
    state: optax.OptState
    loss: float = float("nan")
    seconds: list[float] = field(default_factory=list)

    def advance(self, batch: Any) -> None:
        """Trains on one batch."""
        start = time.perf_counter()
        results = jax.block_until_ready(self.step(self.params, self.state, batch))
        self.seconds.append(time.perf_counter() - start)
        self.params, self.state, loss = results
        self.loss = float(loss)

    @property
    def state_bytes(self) -> int:
        """What the optimizer keeps between steps."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))

    @property
    def milliseconds(self) -> float:
        """Median time of a step; the first, which compiles, counts only if it is the only one."""
        return 1e3 * float(np.median(self.seconds[1:] or self.seconds))


def race(
    task: Task,
    optimizers: Mapping[str, optax.GradientTransformation],
    steps: int,
    report: Report,
) -> dict[str, Runner]:
    """Trains with every optimizer from the same start; `report` follows the first of them."""
    runners = {name: _at_the_start(task, opt) for name, opt in optimizers.items()}
    ordered = list(runners.values())
    scores_every = max(1, steps // 50)
    accuracy = float("nan")
    for done, batch in zip(range(1, steps + 1), task.batches(), strict=False):
        for runner in ordered if done % 2 else reversed(ordered):
            runner.advance(batch)
        if done % scores_every == 0 or done in (1, steps):
            accuracy = float(task.scores(ordered[0].params)["test accuracy"])
        report(done, ordered[0].loss, accuracy)
    return runners


def largest_difference(one: optax.Params, other: optax.Params) -> float:
    """The largest absolute difference between two trees of parameters."""
    return max(
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def _at_the_start(task: Task, opt: optax.GradientTransformation) -> Runner:
    def step(
        params: optax.Params, state: optax.OptState, batch: Any
    ) -> tuple[optax.Params, optax.OptState, jax.Array]:
        loss, grads = jax.value_and_grad(task.loss)(params, batch)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.tree.map(jnp.copy, task.params)
    return Runner(jax.jit(step, donate_argnums=(0, 1)), params, opt.init(params))
