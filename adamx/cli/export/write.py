# SPDX-License-Identifier: Apache-2.0
"""Writes a run for `run-exported`: the step on one device, as a function of plain arrays."""

from pathlib import Path
from typing import Any

import jax

from adamx.cli.export import file
from adamx.cli.tasks import Task
from adamx.core.step import step as take_step
from adamx.parallel import Run
from adamx.parallel.loss import Loss, gradient

BATCHES = 64


def export(path: Path, task: Task, opt: Any, run: Run, steps: int) -> None:
    """Writes the step, its arrays after `steps` steps, and the next batches."""
    run = run._replace(key=None if run.key is None else jax.random.key_data(run.key))
    arrays, form = jax.tree.flatten(jax.device_get(run))  # from all devices to one
    batches = [task.batch(steps + i) for i in range(BATCHES)]
    flat = [jax.tree.leaves(batch) for batch in batches]
    batch_form = jax.tree.structure(batches[0])
    loss = Loss(task.loss, has_aux=False, micro_batches=1)

    def step(arrays: list[Any], batch: list[Any]) -> tuple[list[Any], Any]:
        run = form.unflatten(arrays)
        key = used = None
        if run.key is not None:
            key, used = jax.random.split(jax.random.wrap_key_data(run.key))
            key = jax.random.key_data(key)
        found = gradient(loss, run, batch_form.unflatten(batch), used)
        value = found.outcome.loss
        params, state = take_step(opt, run.params, run.state, found.grads, value=value)
        return jax.tree.leaves(Run(params, state, None, key)), value

    about = {"title": task.title, "begun": steps, "steps": steps, "units": task.units}
    program = file.program(step, arrays, flat[0])
    contents = file.Exported(about, step, program, arrays, flat)
    file.write(path, contents)
