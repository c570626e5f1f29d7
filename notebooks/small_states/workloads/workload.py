# SPDX-License-Identifier: Apache-2.0
"""What a workload is: a small problem written in JAX, and the recipe that everybody trains it with.

A workload knows its model, its data and its schedule. How moments rest and how steps land is the
business of the optimizer that `run.py` is handed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike


class Problem(NamedTuple):
    """A model and its data, as functions that `lax.scan` can hold.

    Attributes:
      init: `key -> (params, world)`: float32 parameters, and what the problem carries from step to
        step beside them (a simulated world; nothing where batches are drawn from a table).
      grads: `(params, world, key) -> (grads, world)`, the gradients in the parameters' dtype.
      measure: `(params, world) -> (training loss, validation loss)`; lower is better.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    grads: Callable[[Any, Any, jax.Array], tuple[Any, Any]]
    measure: Callable[[Any, Any], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    """A problem and the protocol under which it is trained.

    Attributes:
      name: as the tables call it.
      steps: how many a run has.
      rates: the grid of learning rates, in factors of 2, from too small to where float32 fails.
      problem: makes the problem; it is called once per process.
      recipe: what the recipe is given beside learning rate, storage and landing.
      clip: the largest global norm of a gradient, None to leave it alone.
      warmup: the share of steps in which the rate rises, before it falls to zero along a cosine;
        None for a constant rate.
    """

    name: str
    steps: int
    rates: tuple[float, ...]
    problem: Callable[[], Problem]
    recipe: Mapping[str, Any]
    clip: float | None = None
    warmup: float | None = None

    def schedule(self, rate: ArrayLike) -> optax.Schedule:
        """The learning rate of each step, for a peak that may be traced."""
        peak = jnp.asarray(rate, jnp.float32)
        if self.warmup is None:
            return lambda count: peak
        rising = self.warmup * self.steps

        def at(count: ArrayLike) -> jax.Array:
            step = jnp.asarray(count).astype(jnp.float32)
            past = jnp.maximum(step - rising, 0) / (self.steps - rising)
            return peak * jnp.minimum((step + 1) / rising, 0.5 + 0.5 * jnp.cos(jnp.pi * past))

        return at


def supervised(
    init: Callable[[jax.Array], Any],
    batch: Callable[[jax.Array], Any],
    loss: Callable[[Any, Any], jax.Array],
    train: Any,
    validation: Any,
) -> Problem:
    """A problem from a loss of `(params, batch)` and a draw of batches.

    Args:
      init: `key -> params`, in float32.
      batch: `key -> batch`.
      loss: the mean loss of a batch.
      train, validation: stacks of batches to measure on, along a leading axis.
    """

    def grads(params: Any, world: Any, key: jax.Array) -> tuple[Any, Any]:
        drawn = batch(key)
        return jax.grad(lambda p: loss(widen(p), drawn))(params), world

    def measure(params: Any, world: Any) -> tuple[jax.Array, jax.Array]:
        params = widen(params)
        over = [
            jax.lax.map(lambda b: loss(params, b), stack).mean() for stack in (train, validation)
        ]
        return over[0], over[1]

    return Problem(lambda key: (init(key), ()), grads, measure)


def widen(params: Any) -> Any:
    """Parameters as float32, in which every model computes, whatever they rest in.

    The gradient comes back through the cast, so that bfloat16 parameters get bfloat16 gradients.
    """
    return jax.tree.map(lambda p: p.astype(jnp.float32), params)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean surprise of the labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def dense(key: jax.Array, inputs: int, outputs: int, gain: float = 1.0) -> jax.Array:
    """A kernel that keeps the size of its input, times `gain`."""
    return jax.random.normal(key, (inputs, outputs)) * (gain * inputs**-0.5)
