# SPDX-License-Identifier: Apache-2.0
"""Gradients made up to be hard to remember, for runs too long for a model.

Not a training problem: parameters play no part, nothing is measured. One leaf for each habit of a
gradient; scales spread over four decades from row to row, and by a factor of three within a row.
"""

from typing import Any

import jax
import jax.numpy as jnp

from notebooks.small_states.workloads.workload import Problem, Workload

SIDE = 32
HABITS = ("noisy", "drifting", "alternating", "sparse", "silent", "fading")


def _problem() -> Problem:
    def init(key: jax.Array) -> tuple[Any, Any]:
        rows, within = jax.random.split(key)
        decades = jax.random.uniform(rows, (SIDE, 1), minval=-4.0, maxval=0.0)
        scale = 10 ** (decades + 0.5 * jax.random.normal(within, (SIDE, SIDE)))
        return dict.fromkeys(HABITS, jnp.zeros((SIDE, SIDE))), (scale, jnp.int32(0))

    def grads(params: Any, world: Any, key: jax.Array) -> tuple[Any, Any]:
        scale, count = world
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, scale.shape)
        chance = jax.random.uniform(second, scale.shape)
        step = count.astype(jnp.float32)
        now = {
            "noisy": noise,
            "drifting": 0.3 + noise,
            "alternating": jnp.where(count % 2, 1.0, -1.0) * (1 + 0.1 * noise),
            "sparse": jnp.where(chance < 0.01, noise, 0.0),
            "silent": jnp.where(count % 4000 < 1000, noise, 0.0),
            "fading": noise * 10 ** (1.5 * jnp.cos(step * (2 * jnp.pi / 20_000))),
        }
        found = {k: (scale * x).astype(params[k].dtype) for k, x in now.items()}
        return found, (scale, count + 1)

    def measure(params: Any, world: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros(()), jnp.zeros(())

    return Problem(init, grads, measure)


_DRAWS = (jax.random.normal, jax.random.uniform)

synthetic = Workload(
    name="synthetic",
    steps=100_000,
    rates=(0.0,),
    problem=_problem,
    recipe={"b2": 0.999, "weight_decay": None},
)
