# SPDX-License-Identifier: Apache-2.0
"""Twenty runs in which nothing is wrong: every task of `train`, and the workloads of the study."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import adamx
from adamx import health
from adamx.cli import main
from notebooks.small_states.run import clipping, problem
from notebooks.small_states.workloads import WORKLOADS, Workload
from tests.health.patients import read

TRAINED = {
    "digits": "--task digits --steps 300",
    "digits-cnn": "--task digits-cnn --steps 150 --batch-size 64",
    "text": "--task text --steps 210",
    "regression": "--task regression --steps 600",
    "source": "--task source --steps 60 --batch-size 4",
    "digits, two bytes": "--task digits --steps 300 --dtype bfloat16 --storage int8 "
    "--landing stochastic",
    "text, two bytes": "--task text --steps 210 --storage int8",
    "regression, one byte": "--task regression --steps 600 --storage int4",
    "regression, float16": "--task regression --steps 600 --dtype float16 --loss-scale "
    "--landing kahan",
}
# (steps, runs): few enough for a test; the schedules are as long as the runs.
STUDIED = {
    "mlp": (400, 2),
    "cnn": (150, 2),
    "bigram": (200, 2),
    "embedding": (150, 2),
    "control": (400, 2),
    "transformer": (60, 1),
}
SEED = 100  # thresholds were chosen on seeds 0 to 2
LOOKS, PARTS = 40, 20  # observations of a run, and rows with its loss


def runs(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The name and the history of each."""
    for name in TRAINED:
        yield name, trained(name, folder)
    for name, (steps, count) in STUDIED.items():
        workload = dataclasses.replace(WORKLOADS[name], steps=steps)
        for i in range(count):
            yield f"{name}, {i}", studied(workload, SEED + i)


def trained(name: str, folder: Path) -> list[dict[str, Any]]:
    """The log of one run of `train`."""
    run = folder / name.replace(", ", "-").replace(" ", "-")
    flags = f"{TRAINED[name]} --seed {SEED} --watch 5 --devices 1 --run {run}"
    with contextlib.redirect_stdout(io.StringIO()), jax.numpy_dtype_promotion("standard"):
        assert main(["train", *flags.split()]) == 0
    return health.history(run / "run.jsonl")


def studied(workload: Workload, seed: int) -> list[dict[str, Any]]:
    """The history of one run of a workload of the study, at the third rate of its grid."""
    begin, part = programs(workload)
    carry, rest = begin(jnp.uint32(seed))
    rows: list[dict[str, Any]] = []
    each, every = workload.steps // PARTS, max(1, workload.steps // LOOKS)
    for keys in jax.random.split(rest, (PARTS, each)):
        carry, figures, loss = part(carry, keys)
        columns = {k: x.tolist() for k, x in jax.device_get(figures).items()}
        rows += [
            {"step": len(rows) + i + 1} | {k: x[i] for k, x in columns.items()} for i in range(each)
        ]
        rows[-1]["loss"] = float(loss)
    return [row for row in rows if row["step"] % every == 0 or "loss" in row]


@functools.lru_cache(1)
def programs(workload: Workload) -> tuple[Any, Any]:
    """The start of a run and a part of it, compiled."""
    task = problem(WORKLOADS[workload.name])
    rate = jnp.float32(workload.rates[2])
    inner = adamx.adamw(workload.schedule(rate), **workload.recipe)
    opt = optax.chain(clipping(workload), health.observe(inner, per_leaf=True))

    @jax.jit
    def begin(seed: jax.Array) -> Any:
        first, rest = jax.random.split(jax.random.key(seed))
        params, world = task.init(first)
        return (params, opt.init(params), world), rest

    def step(carry: Any, key: jax.Array) -> Any:
        params, state, world = carry
        grads, world = task.grads(params, world, key)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, world), read(state)

    @jax.jit
    def part(carry: Any, keys: jax.Array) -> Any:
        carry, figures = jax.lax.scan(step, carry, keys)
        params, _, world = carry
        return carry, figures, task.measure(params, world)[0]

    return begin, part
