# SPDX-License-Identifier: Apache-2.0
"""The error of each format on one stream of gradients, beside float32's moments on the same stream.

    python -m notebooks.small_states.streams --workloads mlp,embedding --formats bfloat16,flashoptim
    python -m notebooks.small_states.streams --workloads synthetic --steps 100000 \
        --at 100,1000,10000,100000 --out notebooks/small_states/results/drift.csv

float32 trains; the others watch. What is compared, over the elements whose mean square in float32
is not zero, and never across trees, so that nothing is averaged over runs that went apart:

  root: sqrt(v32 / v) - 1, the relative error of 1 / sqrt(v) as the next step reads it; bias
    correction and epsilon are left out. inf where v was lost to zero.
  update: (u - u32) / rms(u32), the rms over the element's leaf. Not relative to the element's own
    |u32|: that passes through zero all the time, where a large quotient means nothing. An update is
    the displacement over the learning rate, so its error counts as such, whichever element has it.
  sum: the same for the sum of the last `--window` updates, which is what displaces a parameter:
    noise cancels in it, bias does not.

`*_bias` are means with a sign: of the root's error where v is not zero, and of the update's error
times sign(u32), which is positive where steps are too long. First each element is averaged over
all windows so far, then the elements; `*_ci` is 1.96 standard errors of that. (Rounding is
independent from element to element in our formats; blocks share a scale, and their intervals are
too narrow.)
"""

import argparse
import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import adamx
from notebooks.small_states.memories import Memory, memory
from notebooks.small_states.run import clipping, problem
from notebooks.small_states.training import RESULTS, names
from notebooks.small_states.workloads import WORKLOADS, Workload
from notebooks.small_states.workloads.synthetic import synthetic
from tests import blockwise

STREAMS = {**WORKLOADS, "synthetic": synthetic}
FIELDS = (
    *("workload", "format", "step", "alive", "zero_share"),
    *("root_median", "root_p99", "root_bias", "root_ci"),
    *("update_median", "update_p99", "update_bias", "update_ci"),
    *("sum_median", "sum_p99"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the CSV that the command line asks for, anew."""
    args = _parser().parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for name in args.workloads:
            workload = STREAMS[name]
            if args.steps:
                workload = dataclasses.replace(workload, steps=args.steps)
            rate = args.rate or workload.rates[:3][-1]
            at = [int(step) for step in args.at.split(",")] if args.at else None
            for row in errors(workload, args.formats, rate, args.seed, args.window, at):
                row = {k: f"{x:.6g}" if isinstance(x, float) else x for k, x in row.items()}
                writer.writerow(row)
                file.flush()
                print(*(row[k] for k in FIELDS), flush=True)


def errors(
    workload: Workload,
    formats: Sequence[str],
    rate: float,
    seed: int,
    window: int = 100,
    at: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of one workload: one for each format after each window, or at the steps `at`."""
    hyper = {k: workload.recipe[k] for k in ("b1", "b2", "eps") if k in workload.recipe}
    memories = {name: memory(name, **hyper) for name in ("float32", *formats)}
    advance = _advance(workload, memories, rate, window)
    carry = _start(workload, memories, rate, seed)
    for step in range(window, workload.steps + 1, window):
        carry, found = advance(carry)
        if at is None or step in at:
            for name in formats:
                values = {k: float(x) for k, x in found[name].items()}
                yield {"workload": workload.name, "format": name, "step": step, **values}


def _start(workload: Workload, memories: dict[str, Memory], rate: float, seed: int) -> Any:
    first, key = jax.random.split(jax.random.key(seed))
    params, world = problem(workload).init(first)
    states = {name: m.init(params) for name, m in memories.items()}
    zeros = jax.tree.map(jnp.zeros_like, params)
    tallies = {name: {"root": (zeros, zeros), "update": (zeros, zeros)} for name in memories}
    return params, _trainer(workload, rate).init(params), world, key, states, tallies


def _trainer(workload: Workload, rate: float) -> Any:
    return adamx.adamw(workload.schedule(rate), **workload.recipe)


def _advance(workload: Workload, memories: dict[str, Memory], rate: float, window: int) -> Any:
    """A compiled function that goes on by one window and then compares."""
    task, trainer, clip = problem(workload), _trainer(workload, rate), clipping(workload)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, trained, world, key, states, _, _, sums = carry
        key, now = jax.random.split(key)
        grads, world = task.grads(params, world, now)
        grads, _ = clip.update(grads, clip.init(params))
        updates, trained = trainer.update(grads, trained, params)
        params = jax.tree.map(jnp.add, params, updates)
        found = {name: m.step(grads, states[name]) for name, m in memories.items()}
        directions = {name: f[0] for name, f in found.items()}
        squares = {name: f[1] for name, f in found.items()}
        states = {name: f[2] for name, f in found.items()}
        sums = jax.tree.map(jnp.add, sums, directions)
        return (params, trained, world, key, states, directions, squares, sums), None

    @jax.jit
    def advance(carry: Any) -> tuple[Any, Any]:
        *carry, tallies = carry
        nothing = {name: jax.tree.map(jnp.zeros_like, carry[0]) for name in memories}
        carry, _ = jax.lax.scan(step, (*carry, nothing, nothing, nothing), length=window)
        *carry, directions, squares, sums = carry
        found = {}
        for name in memories:
            pairs = [(t["float32"], t[name]) for t in (squares, directions, sums)]
            found[name], tallies[name] = _compare(*pairs, tallies[name])
        return (*carry, tallies), found

    return advance


def _compare(squares: Any, directions: Any, sums: Any, tally: Any) -> tuple[Any, Any]:
    """The columns of one format now, and its tallies of signed errors."""
    alive = jax.tree.map(lambda v: v > 0, squares[0])
    kept = jax.tree.map(lambda a, v: a & (v > 0), alive, squares[1])
    root = jax.tree.map(_root_error, kept, *squares)
    update = jax.tree.map(_relative_error, alive, *directions)
    total = jax.tree.map(_relative_error, alive, *sums)
    longer = jax.tree.map(lambda e, u: e * jnp.sign(u), update, directions[0])
    tally = {
        "root": _tallied(tally["root"], kept, root),
        "update": _tallied(tally["update"], alive, longer),
    }
    mask = _flat(alive)
    lost = (mask & ~_flat(kept)).sum() / jnp.maximum(mask.sum(), 1)
    columns = {"alive": mask.mean(), "zero_share": lost}
    for name, error in (("root", root), ("update", update), ("sum", total)):
        columns[f"{name}_median"], columns[f"{name}_p99"] = _quantiles(mask, _flat(error))
    for name, (summed, times) in tally.items():
        columns[f"{name}_bias"], columns[f"{name}_ci"] = _mean(_flat(summed), _flat(times))
    return columns, tally


def _root_error(kept: jax.Array, v32: jax.Array, v: jax.Array) -> jax.Array:
    # The quotient of roots: one of squares of 1e-30 and 1e-44 would leave float32.
    return jnp.where(kept, jnp.sqrt(v32) / jnp.sqrt(jnp.where(kept, v, 1)) - 1, jnp.inf)


def _relative_error(alive: jax.Array, u32: jax.Array, u: jax.Array) -> jax.Array:
    count = jnp.maximum(alive.sum(), 1).astype(u32.dtype)
    rms = jnp.sqrt(jnp.where(alive, jnp.square(u32), 0).sum() / count)
    return jnp.where(alive, (u - u32) / jnp.maximum(rms, 1e-15), 0)


def _tallied(tally: Any, counted: Any, error: Any) -> Any:
    summed, times = tally
    summed = jax.tree.map(lambda s, c, e: s + jnp.where(c, e, 0), summed, counted, error)
    return summed, jax.tree.map(lambda n, c: n + c.astype(n.dtype), times, counted)


def _quantiles(mask: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The median and the 99th percentile of |error| where `mask` holds."""
    ordered = jnp.sort(jnp.where(mask, jnp.abs(error), jnp.nan))  # NaN comes last
    last = jnp.maximum(mask.sum() - 1, 0).astype(jnp.float32)
    median, high = (ordered[jnp.round(q * last).astype(jnp.int32)] for q in (0.5, 0.99))
    return median, high


def _mean(summed: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean over elements of their means over time, and 1.96 standard errors of it."""
    seen = times > 0
    count = jnp.maximum(seen.sum(), 2).astype(jnp.float32)
    each = jnp.where(seen, summed / jnp.maximum(times, 1), 0)
    mean = each.sum() / count
    spread = jnp.where(seen, jnp.square(each - mean), 0).sum() / (count - 1)
    return mean, 1.96 * jnp.sqrt(spread / count)


def _flat(tree: Any) -> jax.Array:
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [name for name in adamx.storage.NAMED if name != "float32"] + list(blockwise.FORMATS)
    add = parser.add_argument
    add("--workloads", type=names, default=list(WORKLOADS), help=f"of {', '.join(STREAMS)}")
    add("--formats", type=names, default=every, help=f"of {', '.join(every)}")
    add("--rate", type=float, help="learning rate (default: the third of the grid, near the best)")
    add("--seed", type=int, default=0, help="of parameters and batches")
    add("--steps", type=int, help="length of the stream (default: the workload's)")
    add("--window", type=int, default=100, help="steps between two comparisons")
    add("--at", help="write these steps only, multiples of the window")
    add("--out", type=pathlib.Path, default=RESULTS / "streams.csv", help="the CSV to write")
    return parser


if __name__ == "__main__":
    main()
