# SPDX-License-Identifier: Apache-2.0
"""One training run in one `lax.scan`; rates and seeds are traced, so that nothing recompiles."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

import adamx
from notebooks.small_states.workloads import Problem, Workload

# `factory(learning_rate, **recipe)`, such as `functools.partial(adamx.adamw, storage="bfloat16")`.
# Keep it and hand in the same one again: another one is compiled anew.
Factory = Callable[..., optax.GradientTransformation]


class Losses(NamedTuple):
    """What a run ended with, and the validation loss that it began with."""

    train: Any
    validation: Any
    start: Any


def train(
    workload: Workload, factory: Factory, rate: float, seed: int, dtype: DTypeLike = jnp.float32
) -> Losses:
    """Trains once, with parameters that rest in `dtype`.

    The seed draws parameters and batches; the rounding of a storage has a seed of its own.
    """
    found = _train(workload, factory, jnp.dtype(dtype), jnp.float32(rate), jnp.uint32(seed))
    return Losses(*map(float, found))


def clipping(workload: Workload) -> optax.GradientTransformation:
    """What the workload does to gradients before any optimizer sees them."""
    return optax.identity() if workload.clip is None else adamx.clip_by_global_norm(workload.clip)


@functools.cache
def problem(workload: Workload) -> Problem:
    """The workload's problem; its data are loaded once, outside of any trace."""
    with jax.ensure_compile_time_eval():
        return workload.problem()


def _run(
    workload: Workload, factory: Factory, dtype: jnp.dtype, rate: jax.Array, seed: jax.Array
) -> Losses:
    task = problem(workload)
    opt = optax.chain(clipping(workload), factory(workload.schedule(rate), **workload.recipe))
    first, rest = jax.random.split(jax.random.key(seed))
    params, world = task.init(first)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    start = task.measure(params, world)[1]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state, world = carry
        grads, world = task.grads(params, world, key)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, world), None

    keys = jax.random.split(rest, workload.steps)
    (params, _, world), _ = jax.lax.scan(step, (params, opt.init(params), world), keys)
    return Losses(*task.measure(params, world), start)


_train = jax.jit(_run, static_argnums=(0, 1, 2))
