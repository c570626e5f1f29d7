# SPDX-License-Identifier: Apache-2.0
"""A linear bigram model whose words have Zipf's frequencies: full batch, nothing but scales.

Word k comes with frequency pi_k ∝ 1/k; what follows it is drawn from Dirichlet(0.1). The loss is
the excess over the best possible, relative to the excess at the start.
"""

from typing import Any

import jax
import jax.numpy as jnp

from notebooks.small_states.workloads.workload import Problem, Workload, widen

WORDS = 256


def _problem() -> Problem:
    frequency = 1 / jnp.arange(1, WORDS + 1, dtype=jnp.float32)
    frequency = (frequency / frequency.sum())[:, None]

    def init(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        follow = jax.random.dirichlet(key, jnp.full(WORDS, 0.1), (WORDS,))
        return jnp.zeros((WORDS, WORDS)), follow

    def grads(params: Any, follow: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        return jax.grad(lambda p: _divergence(p, follow))(params), follow

    def _divergence(params: Any, follow: jax.Array) -> jax.Array:
        surprise = -jax.nn.log_softmax(widen(params)) + _log(follow)
        return (frequency * follow * surprise).sum()

    def measure(params: Any, follow: jax.Array) -> tuple[jax.Array, jax.Array]:
        excess = _divergence(params, follow) / _divergence(jnp.zeros_like(params), follow)
        return excess, excess

    return Problem(init, grads, measure)


def _log(follow: jax.Array) -> jax.Array:
    return jnp.log(jnp.where(follow > 0, follow, 1))


bigram = Workload(
    name="bigram",
    steps=200,
    rates=(0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6),
    problem=_problem,
    recipe={"b2": 0.999, "weight_decay": None},
)
