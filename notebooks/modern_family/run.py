# SPDX-License-Identifier: Apache-2.0
"""One training run. Rate, decay and seed are traced, so that nothing recompiles."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from notebooks.modern_family.entrants import Entrant
from notebooks.small_states.run import clipping, problem
from notebooks.small_states.workloads import Workload


class Ended(NamedTuple):
    """What a run ended with: losses, and the validation loss that it began with."""

    train: float
    validation: float
    start: float


def train(workload: Workload, entrant: Entrant, rate: float, decay: float, seed: int) -> Ended:
    """Trains once. The seed draws parameters and batches."""
    found = _train(workload, entrant, jnp.float32(rate), jnp.float32(decay), jnp.uint32(seed))
    return Ended(*map(float, found))


def optimizer(workload: Workload, entrant: Entrant, rate: Any, decay: Any) -> Any:
    """The workload's clipping, then the entrant."""
    return optax.chain(clipping(workload), entrant.build(workload, rate, decay))


def _run(workload: Workload, entrant: Entrant, rate: Any, decay: Any, seed: Any) -> Any:
    task = problem(workload)
    opt = optimizer(workload, entrant, rate, decay)
    first, rest = jax.random.split(jax.random.key(seed))
    params, world = task.init(first)
    start = task.measure(params, world)[1]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state, world = carry
        grads, world = task.grads(params, world, key)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, world), None

    keys = jax.random.split(rest, workload.steps)
    (params, state, world), _ = jax.lax.scan(step, (params, opt.init(params), world), keys)
    return *task.measure(entrant.evaluated(params, state[1]), world), start


_train = jax.jit(_run, static_argnums=(0, 1))
