# SPDX-License-Identifier: Apache-2.0
"""Trains the study's workloads again and writes `curves.csv`: validation loss over steps.

    python -m docs.pictures.curves_runs mlp cnn embedding bigram

The study keeps final losses only. Problems, recipes and seeds are the study's own; each storage
trains at its own best rate there.
"""

import csv
import functools
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from docs.pictures.drawing import HERE
from docs.pictures.rates import FORMATS, losses
from notebooks.small_states.run import clipping, problem
from notebooks.small_states.workloads import WORKLOADS, Workload

SEEDS, LOOKS = 5, 50


def main(names: Sequence[str]) -> None:
    """Trains, and replaces the rows of the named workloads."""
    path = HERE / "curves.csv"
    found = losses()
    old = list(csv.reader(path.open(encoding="utf-8")))[1:] if path.exists() else []
    kept = [row for row in old if row[0] not in names]
    for name in names:
        for storage in FORMATS:
            rates = {rate: x for rate, x in found[name, storage].items() if len(x) >= SEEDS}
            best = min(rates, key=lambda rate: np.mean(rates[rate]))
            curves = _train(WORKLOADS[name], storage, best)
            for seed, curve in enumerate(curves):
                for look, loss in enumerate(curve):
                    step = round(look * WORKLOADS[name].steps / LOOKS)
                    kept.append([name, storage, f"{best:.7g}", seed, step, f"{loss:.5g}"])
            print(name, storage, best, np.round([c[-1] for c in curves], 4), flush=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [["workload", "format", "rate", "seed", "step", "val_loss"], *kept]
        csv.writer(file, lineterminator="\n").writerows(rows)


def _train(workload: Workload, storage: str, rate: float) -> np.ndarray:
    """The validation losses of every seed, at the start and at `LOOKS` steps."""
    make = functools.partial(adamx.adamw, storage=storage)
    task, schedule = problem(workload), workload.schedule(rate)
    opt = optax.chain(clipping(workload), make(schedule, **workload.recipe))

    @jax.jit
    def run(seed: jax.Array) -> jax.Array:
        first, rest = jax.random.split(jax.random.key(seed))
        params, world = task.init(first)
        keys = jax.random.split(rest, workload.steps).reshape(LOOKS, -1)
        start = task.measure(params, world)[1]
        _, seen = jax.lax.scan(look, (params, opt.init(params), world), keys)
        return jnp.concatenate([start[None], seen])

    def look(carry: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
        (params, state, world), _ = jax.lax.scan(step, carry, keys)
        return (params, state, world), task.measure(params, world)[1]

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, state, world = carry
        grads, world = task.grads(params, world, key)
        updates, state = opt.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, world), None

    return np.stack([run(jnp.uint32(seed)) for seed in range(SEEDS)])


if __name__ == "__main__":
    main(sys.argv[1:])
