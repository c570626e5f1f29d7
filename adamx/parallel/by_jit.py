# SPDX-License-Identifier: Apache-2.0
"""One training step over whole arrays, which `jit` spreads over a mesh by their shardings."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding

from adamx.core.step import step as take_step
from adamx.parallel.loss import Outcome, Run, gradient
from adamx.parallel.shardings import over, split, state_shardings
from adamx.parallel.spec import DataParallel, Task, spread_batch, ways


def meshed(task: Task) -> DataParallel:
    """Training by `jit`, with everything in whole arrays.

    If moments are split over more devices than parameters are (ZeRO-1), gradients and parameters
    are split like the moments before the optimizer sees them. The compiler then uses a
    reduce-scatter for the gradients, and an all-gather for the new parameters.
    """
    zero_axis = task.axis if task.zero else None
    stored, report = _state(task, zero_axis, task.memory_kind)
    works = _state(task, zero_axis, None)[0] if task.memory_kind else stored
    whole = task.placed(task.specs)
    part = task.placed(split(task.specs, task.shapes, task.mesh, zero_axis))
    everywhere = Run(whole, stored, task.copied, task.copied)

    def step(run: Run, batch: Any) -> tuple[Run, Outcome]:
        key, used = (None, None) if run.key is None else jax.random.split(run.key)
        grads, outcome, model = gradient(task.loss, run, batch, used)
        state = run.state if works is stored else jax.device_put(run.state, works)
        params = laid(run.params, part)
        params, state = take_step(task.opt, params, state, laid(grads, part), value=outcome.loss)
        return Run(laid(params, whole), state, model, key), outcome

    stepped = jax.jit(step, donate_argnums=task.donated, out_shardings=(everywhere, None))
    return ways(
        task,
        stepped=stepped,
        place=lambda batch: spread_batch(task, batch),
        stored=everywhere,
        plain=everywhere,
        report=report,
    )


def laid(tree: Any, shardings: Any) -> Any:
    """Traced arrays, moved to these shardings; the mesh may have axes of any type."""

    def one(x: jax.Array, sharding: NamedSharding) -> jax.Array:
        mesh = sharding.mesh
        for kind, move in _MOVES.items():
            kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
            axes = {name for name, found in kinds if found == kind}
            x = move(x, NamedSharding(mesh, over(sharding.spec, axes))) if axes else x
        return x

    return jax.tree.map(one, tree, shardings)


_MOVES: dict[AxisType, Any] = {
    AxisType.Explicit: jax.sharding.reshard,
    AxisType.Auto: jax.lax.with_sharding_constraint,
}


def _state(task: Task, zero_axis: str | None, memory_kind: str | None) -> Any:
    return state_shardings(task.opt, task.shapes, task.mesh, task.specs, zero_axis, memory_kind)
