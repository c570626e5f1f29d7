# SPDX-License-Identifier: Apache-2.0
"""The cost of observing and guarding, in an update alone and in a step of training a transformer.

Each sample is a hundred steps, so that work done every hundredth step counts as it does in a run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx import health
from adamx.cli import names
from adamx.cli.bench.timing import quartiles, ratios, timed
from adamx.cli.tasks import transformer


class Load(NamedTuple):
    """The size of a measurement: parameters of the update, the transformer, steps per sample."""

    parameters: int = 8_388_608
    size: transformer.Size = transformer.Size()
    steps: int = 100


QUICK = Load(4096, transformer.Size(16, 2, 1, 16, 64), 3)
GUARDS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda opt: opt,
    "observe(every=1)": health.observe,
    "observe(every=100)": lambda opt: health.observe(opt, every=100),
    "skip_nonfinite": health.skip_nonfinite,
    "skip_spikes": health.skip_spikes,
    "scale_loss": health.scale_loss,
    "rewind": health.rewind,
    "clip_by_global_norm": lambda opt: optax.chain(adamx.clip_by_global_norm(1.0), opt),
    "counted(clip_by_global_norm)": lambda opt: optax.chain(
        health.counted(adamx.clip_by_global_norm(1.0)), opt
    ),
}
HEADER = ["around the optimizer", "update [ms]", "/ nothing", "step of training [ms]", "/ nothing"]


def watching_table(recipe: str, repeats: int, load: Load) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each guard."""
    columns = [_measured(make, recipe, repeats, load) for make in (_update, _training)]
    rows = []
    for name in GUARDS:
        cells = []
        for samples in columns:
            low, middle, high = quartiles(ratios(samples[name], samples["nothing"]))
            cells.append(f"{1e3 * quartiles(samples[name])[1]:.1f}")
            cells.append("" if name == "nothing" else f"{middle:.2f} ({low:.2f} to {high:.2f})")
        rows.append([name, *cells])
    return HEADER, rows


def _measured(make: Any, recipe: str, repeats: int, load: Load) -> dict[str, list[float]]:
    """Seconds per step with each guard, one sample per round."""
    calls = {
        name: make(wrap(names.ours(recipe, learning_rate=1e-3)), load)
        for name, wrap in GUARDS.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # compiles
    for i in range(repeats):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            seconds, _ = timed(lambda name=name: [calls[name]() for _ in range(load.steps)])
            samples[name].append(seconds / load.steps)
    return samples


def _update(opt: Any, load: Load) -> Callable[[], None]:
    params = {"kernel": jnp.full((load.parameters // 64, 64), 0.5, jnp.float32)}
    grads = jax.tree.map(lambda p: 0.01 * p, params)
    return _stepping(opt, params, grads, lambda params, grads: grads)


def _training(opt: Any, load: Load) -> Callable[[], None]:
    random = np.random.default_rng(0)
    windows = jnp.asarray(random.integers(0, 64, (16, load.size.context + 1)), jnp.uint8)

    def loss(params: Any, windows: jax.Array) -> jax.Array:
        return transformer.loss(params, windows, load.size.heads)

    return _stepping(opt, transformer.init(0, load.size), windows, jax.grad(loss))


def _stepping(opt: Any, params: Any, data: Any, grad: Any) -> Callable[[], None]:
    """A function that takes one step in place."""

    def step(state: Any, params: Any, data: Any) -> tuple[Any, Any]:
        grads = grad(params, data)
        params, state = adamx.step(opt, params, state, grads, value=jnp.float32(1))
        return state, params

    stepped = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, params)  # copies, as the step donates them
    held = opt.init(params), params

    def call() -> None:
        nonlocal held
        held = jax.block_until_ready(stepped(*held, data))

    return call
