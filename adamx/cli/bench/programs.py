# SPDX-License-Identifier: Apache-2.0
"""The cost of a step before its first run: time to trace, lower and compile, and memory."""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from adamx.cli.bench.timing import timed
from adamx.core.step import jit_step

Build = Callable[[], optax.GradientTransformation]


def step_of(opt: optax.GradientTransformation) -> Any:
    """A fresh jitted step (update and apply) that owns its parameters and state.

    JAX pairs donated arguments with results in order. Parameters and state are returned in the
    order of the arguments, or each would be copied into another's buffer.
    """

    def step(
        params: optax.Params, state: optax.OptState, grads: optax.Updates
    ) -> tuple[optax.Params, optax.OptState]:
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def one_off_costs(build: Build, shapes: Any) -> dict[str, float]:
    """Seconds to trace, lower and compile `adamx.step`, and its temporary bytes.

    Clears JAX's caches first, so that each measurement is that of a fresh process.
    """
    jax.clear_caches()
    opt = build()
    state = jax.eval_shape(opt.init, shapes)
    trace, traced = timed(lambda: jit_step(opt).trace(shapes, state, shapes))
    lower, lowered = timed(traced.lower)
    compile_, compiled = timed(lowered.compile)
    memory = compiled.memory_analysis()
    return {
        "trace": trace,
        "lower": lower,
        "trace + lower": trace + lower,
        "compile": compile_,
        "peak temporary": memory.temp_size_in_bytes if memory else math.nan,
    }
