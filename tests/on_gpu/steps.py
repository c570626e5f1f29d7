# SPDX-License-Identifier: Apache-2.0
"""The time of a jitted step for every storage and landing, beside Optax's and torch's AdamW.

Steps are queued, some dozen at a time, so that the device never waits for the host. A step reads
parameters, gradients and state and writes parameters and state: these bytes over its time are a
share of the bandwidth of a copy, measured in the same process.
"""

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.cli import shapes
from adamx.cli.bench.programs import step_of
from adamx.cli.bench.timing import in_turn, quartiles, timed
from adamx.core.tables import as_markdown
from tests.on_gpu.clock import Clock
from tests.on_gpu.torch_steps import torch_calls

HEADER = [
    "parameters: storage, landing",
    "B of state",
    "B moved",
    "ms",
    "/ optax",
    "of a copy",
    "compile s",
    "temporary MB",
]
REFERENCE = "float32: optax"
QUEUED = 20
ROUNDS = 7


class Contestant(NamedTuple):
    """A step to time: what it holds and moves, in bytes per parameter, and what it took to make."""

    call: Callable[[], object]
    state: float
    moved: float
    compile: float = math.nan
    temporary: float = math.nan


def optimizers() -> Iterator[tuple[str, Any, Any]]:
    """The name, the optimizer and the dtype of the parameters; what tells most comes first."""
    storages, landings = list(adamx.storage.NAMED), list(adamx.landing.NAMED)
    yield REFERENCE, optax.adamw(1e-3), jnp.float32
    for storage in storages:
        yield f"float32: {storage}", adamx.adamw(1e-3, storage=storage), jnp.float32
    yield "bfloat16: optax", optax.adamw(1e-3), jnp.bfloat16
    pairs = itertools.product(storages, landings)
    for storage, landing in sorted(pairs, key=lambda pair: pair[0] != "int8"):
        opt = adamx.adamw(1e-3, storage=storage, landing=landing)
        yield f"bfloat16: {storage}, {landing}", opt, jnp.bfloat16


def copy_bandwidth(quick: bool) -> float:
    """Bytes per second, read and written, of `x + 1` on an array of 4 GB."""
    x = jnp.zeros(2**20 if quick else 2**30, jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def call() -> None:
        nonlocal x
        for _ in range(QUEUED):
            x = add(x)
        x.block_until_ready()

    call()
    return 2 * x.nbytes * QUEUED / min(timed(call)[0] for _ in range(ROUNDS))


def contestants(tree: shapes.Shapes, clock: Clock) -> tuple[dict[str, Contestant], list[str]]:
    """Everyone who is ready before a third of the time is left, and the names of the others."""
    random, least = np.random.default_rng(0), clock.left / 3
    wide = {name: random.standard_normal(s, dtype=np.float32) for name, s in tree.items()}
    grads = {d: jax.tree.map(lambda g, d=d: jnp.asarray(g, d), wide) for d in DTYPES}
    found, late = {}, []
    for name, opt, dtype in optimizers():
        if clock.left < least and name != REFERENCE:
            late.append(name)
        else:
            found[name] = contestant(opt, grads[dtype])
    return found, late


DTYPES = (jnp.float32, jnp.bfloat16)


def contestant(opt: optax.GradientTransformation, grads: Any) -> Contestant:
    """Compiles a step of an optimizer."""
    params = jax.tree.map(lambda g: g * jnp.asarray(0.02, g.dtype), grads)
    state = jax.jit(opt.init)(params)
    lowered = step_of(opt).lower(params, state, grads)
    took, step = timed(lowered.compile)
    size = sum(p.size for p in jax.tree.leaves(params))
    held, moment = (sum(x.nbytes for x in jax.tree.leaves(t)) / size for t in (params, state))

    def call() -> None:
        nonlocal params, state
        for _ in range(QUEUED):
            params, state = step(params, state, grads)
        jax.block_until_ready((params, state))

    memory = step.memory_analysis()
    temporary = memory.temp_size_in_bytes if memory else math.nan
    return Contestant(call, moment, 3 * held + 2 * moment, took, temporary)


def table(tree: shapes.Shapes, copy: float, clock: Clock) -> str:
    """The times of all contestants on one tree, as Markdown."""
    entrants, late = contestants(tree, clock)
    notes = [f"Left out for want of time: {'; '.join(late)}."] * bool(late)
    try:
        for name, (call, state, moved) in torch_calls(tree, QUEUED).items():
            entrants[name] = Contestant(call, state, moved)
    except Exception as error:  # torch is optional, and so is its GPU
        notes.append(f"torch is left out: {error}.")
    samples = in_turn({name: entrant.call for name, entrant in entrants.items()}, ROUNDS)
    seconds = {name: quartiles(times)[1] / QUEUED for name, times in samples.items()}
    size, rows = sum(math.prod(shape) for shape in tree.values()), []
    for name, entrant in entrants.items():
        share = entrant.moved * size / seconds[name] / copy
        cells = [f"{entrant.state:.2f}", f"{entrant.moved:.2f}", f"{1e3 * seconds[name]:.3f}"]
        cells += [f"{seconds[name] / seconds[REFERENCE]:.2f}", f"{share:.0%}"]
        cells += [_told(entrant.compile, "{:.1f}"), _told(entrant.temporary / 1e6, "{:.1f}")]
        rows.append([name, *cells])
    return "\n\n".join([as_markdown(HEADER, rows), *notes])


def _told(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def main() -> None:
    """Prints the bandwidth of a copy and a table for each tree."""
    clock = Clock.of_flags()
    copy = copy_bandwidth(clock.quick)
    print(f"A copy moves {copy / 1e9:,.0f} GB/s, bytes read and written.\n", flush=True)
    trees = ["small"] if clock.quick else ["one", "gpt2"]
    for i, name in enumerate(trees):
        tree = shapes.TREES[name]()
        count = sum(math.prod(shape) for shape in tree.values())
        turn = clock._replace(end=time.monotonic() + clock.left / (3 if name == "one" else 1))
        print(f"**{name}: {count:,} parameters in {len(tree)} leaves**\n")
        print(table(tree, copy, turn) + "\n" * (i + 1 < len(trees)), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
