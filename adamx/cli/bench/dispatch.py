# SPDX-License-Identifier: Apache-2.0
"""The cost of dispatching a step to several devices, ours beside Optax's.

The leaves are small, so that there is little to compute. `dispatch` is the time until
the step returns, `step` the time until its results are ready.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adamx import parallel
from adamx.cli import names
from adamx.cli.bench.timing import quartiles, ratios

HOWS = ("jit", "shard_map", "pmap")
HEADER = ["", "dispatch: optax [ms]", "adamx", "/ optax", "step: optax [ms]", "adamx", "/ optax"]


def dispatch_table(
    recipe: str, devices: int, leaves: int, repeats: int
) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each of `HOWS`, with and without ZeRO-1."""
    theirs = names.theirs(names.reference(recipe), learning_rate=1e-3)
    opts = {"optax": theirs, "adamx": names.ours(recipe, learning_rate=1e-3)}
    rows = []
    for how, zero in itertools.product(HOWS, (False, True)):
        calls = {k: _step(opt, how, zero, devices, leaves) for k, opt in opts.items()}
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for i in range(repeats + 1):  # the first round compiles
            for name in list(calls)[:: 1 if i % 2 else -1]:
                samples[name] += [calls[name]() for _ in range(5)][: 5 * (i > 0)]
        cells = []
        for measure in (0, 1):
            ours, theirs = ([s[measure] for s in samples[k]] for k in ("adamx", "optax"))
            low, middle, high = quartiles(ratios(ours, theirs))
            cells += [f"{1e3 * quartiles(x)[1]:.2f}" for x in (theirs, ours)]
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        rows.append([f"{how}, ZeRO-1" if zero else how, *cells])
    return HEADER, rows


def _step(
    opt: Any, how: Any, zero: bool, devices: int, leaves: int
) -> Callable[[], tuple[float, float]]:
    mesh = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    params = {f"layer_{i}": jnp.ones((8, 8), jnp.float32) for i in range(leaves)}
    train = parallel.data_parallel(_loss, opt, params, mesh, how=how, zero=zero)
    run = train.init(params)
    batch = np.ones((devices, 4), np.float32)
    if how != "pmap":
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))

    def call() -> tuple[float, float]:
        nonlocal run
        start = time.perf_counter()
        run, outcome = train.step(run, batch)
        handed_over = time.perf_counter()
        jax.block_until_ready((run, outcome))
        return handed_over - start, time.perf_counter() - start

    return call


def _loss(params: Any, batch: jax.Array) -> jax.Array:
    return jnp.mean(batch) * sum(jnp.sum(p) for p in params.values())
