# SPDX-License-Identifier: Apache-2.0
"""A transformer of GPT-2 small's size on the standard library's source, trained in two formats.

Float32 throughout, and bfloat16 parameters with `int8` moments and the landing `compensated8`. Both
begin with the same weights, and see the same batches for the same number of steps.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.cli.bench.timing import timed
from adamx.cli.tasks import source, transformer
from adamx.core.tables import as_markdown
from tests.on_gpu.clock import Clock

FORMATS = {
    "bfloat16, int8, compensated8": (
        jnp.bfloat16,
        {"storage": "int8", "landing": "compensated8"},
    ),
    "float32": (jnp.float32, {}),
}
"""The smaller one first: the peak of memory is that of the process so far."""

HEADER = [
    "",
    "held-out loss",
    "mean of the last 10",
    "tokens/s",
    "ms a step",
    "peak GB",
    "compile s",
]
MARKS = (0, 9, 24, 49, 99, 149, 199)
WARMUP, MOST_STEPS = 20, 200
FIRST = 5  # steps that are not timed
LONGER = 3.5  # times as long as in the smaller format, at most


class Load(NamedTuple):
    """What is trained."""

    size: transformer.Size
    batch: int


FULL = Load(transformer.Size(768, 12, 12, 512, 8192), 32)
QUICK = Load(transformer.Size(32, 2, 1, 32, 64), 4)


class Trained(NamedTuple):
    """The figures of one run."""

    losses: list[float]
    held_out: float
    seconds: float
    compile: float
    peak: float | None


def windows(text: np.ndarray, load: Load, step: int) -> np.ndarray:
    """The batch of a step."""
    length = load.size.context + 1
    starts = np.random.default_rng([1, step]).integers(0, len(text) - length, load.batch)
    return text[starts[:, None] + np.arange(length)]


def optimizer(steps: int, settings: dict[str, Any]) -> optax.GradientTransformation:
    """AdamW behind a clip, with a warm-up and a cosine."""
    warmup = min(WARMUP, steps // 4)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, warmup, steps, 1e-4)
    decayed = "*/qkv|*/out|*/up|*/down|head"
    adamw = adamx.adamw(rate, b2=0.99, weight_decay=0.1, mask=decayed, **settings)
    return optax.chain(adamx.clip_by_global_norm(1.0), adamw)


def trained(name: str, weights: Any, steps: int, load: Load, clock: Clock) -> Trained:
    """Trains in a format; with 0 steps, as many as the time of both runs allows."""
    dtype, settings = FORMATS[name]
    text, held_out = (np.frombuffer(part, np.uint8) for part in source.read())
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), weights)
    opt = optimizer(MOST_STEPS, settings)
    state, loss = (
        jax.jit(opt.init)(params),
        functools.partial(transformer.loss, heads=load.size.heads),
    )
    step = step_of(opt, loss).lower(params, state, windows(text, load, 0))
    took, step = timed(step.compile)
    losses, goal, begun = [], steps or MOST_STEPS, 0.0
    while len(losses) < goal:
        params, state, value = step(params, state, windows(text, load, len(losses)))
        losses.append(value)
        count = len(losses) - FIRST
        if count % 10:
            continue
        value.block_until_ready()  # the host runs ahead by ten steps at most
        begun = begun if count else time.monotonic()
        spent = time.monotonic() - begun
        if not steps and clock.left < LONGER * (spent + spent / max(count, 1) * FIRST) + 2 * took:
            goal = len(losses)
    jax.block_until_ready(params)
    seconds = (time.monotonic() - begun) / max(len(losses) - FIRST, 1)
    judged = [windows(held_out, load, i) for i in range(8)]
    score = np.mean([float(jax.jit(loss)(params, batch)) for batch in judged])
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return Trained([float(x) for x in losses], float(score), seconds, took, peak)


def step_of(opt: optax.GradientTransformation, loss: Any) -> Any:
    """A jitted step that owns its parameters and state."""

    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, batch)
        return *adamx.step(opt, params, state, grads), value

    return jax.jit(step, donate_argnums=(0, 1))


def main() -> None:
    """Prints the ends of both runs, and their losses on the way."""
    clock = Clock.of_flags()
    load = QUICK if clock.quick else FULL
    weights = jax.tree.map(np.asarray, transformer.init(0, load.size))
    size, rows, curves, steps = sum(x.size for x in jax.tree.leaves(weights)), [], {}, 0
    tokens = load.batch * load.size.context
    for name in FORMATS:
        found = trained(name, weights, steps, load, clock)
        steps, curves[name] = len(found.losses), found.losses
        cells = [f"{found.held_out:.4f}", f"{np.mean(found.losses[-10:]):.4f}"]
        cells += [f"{tokens / found.seconds:,.0f}", f"{1e3 * found.seconds:.1f}"]
        cells += [f"{found.peak / 1e9:.2f}" if found.peak else "", f"{found.compile:.1f}"]
        rows.append([name, *cells])
    print(f"{size:,} parameters, {steps} steps of {tokens:,} bytes; losses in nats per byte.\n")
    print(as_markdown(HEADER, rows) + "\n")
    marks = [i for i in MARKS if i < steps]
    told = [[name, *(f"{losses[i]:.3f}" for i in marks)] for name, losses in curves.items()]
    print(as_markdown(["loss at step", *(str(i + 1) for i in marks)], told))


if __name__ == "__main__":
    main()
