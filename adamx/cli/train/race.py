# SPDX-License-Identifier: Apache-2.0
"""Trains one task with several optimizers on the same batches, one step each in turn."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx import parallel
from adamx.cli.averages import evaluated
from adamx.cli.tasks import Task


@dataclass
class Runner:
    """One optimizer in training: its run, its last loss and the seconds of each step."""

    train: parallel.DataParallel
    run: parallel.Run
    loss: float = float("nan")
    seconds: list[float] = field(default_factory=list)

    def advance(self, batch: Any) -> None:
        """Trains on one batch."""
        start = time.perf_counter()
        self.run, outcome = jax.block_until_ready(self.train.step(self.run, batch))
        self.seconds.append(time.perf_counter() - start)
        self.loss = float(outcome.loss)

    @property
    def params(self) -> optax.Params:
        """The parameters as whole arrays."""
        return self.train.collect(self.run).params

    @property
    def evaluated(self) -> optax.Params:
        """The parameters to evaluate at, as whole arrays."""
        run = self.train.collect(self.run)
        return evaluated(run.state, run.params)

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state on one device."""
        shards = [leaf.addressable_shards[0].data for leaf in jax.tree.leaves(self.run.state)]
        return sum(shard.nbytes for shard in shards)

    @property
    def milliseconds(self) -> float:
        """Median time of a step; the first, which compiles, counts only if it is the only one."""
        return 1e3 * float(np.median(self.seconds[1:] or self.seconds))


def race(
    task: Task, runners: Mapping[str, Runner], steps: range, after: Callable[[int], bool]
) -> None:
    """Trains every runner for these steps on the same batches.

    `after` is called with the number of steps done and returns whether to go on.
    """
    ordered = list(runners.values())
    for step in steps:
        batch = task.batch(step)
        for runner in reversed(ordered) if step % 2 else ordered:
            runner.advance(batch)
        if not after(step + 1):
            return


def at_the_start(
    task: Task, opt: optax.GradientTransformation, over: Mapping[str, Any], key: Any = None
) -> Runner:
    """A runner before its first step; `over` are the settings of `data_parallel`."""
    train = parallel.data_parallel(task.loss, opt, task.params, **over)
    return Runner(train, train.init(task.params, key=key))


def largest_difference(one: optax.Params, other: optax.Params) -> float:
    """The largest absolute difference between two trees of parameters."""
    return max(
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
