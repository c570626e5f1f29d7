# SPDX-License-Identifier: Apache-2.0
"""The training step of one device, mapped over all devices by `shard_map` or `pmap`.

A device has whole parameters and its part of the batch; with ZeRO it has its part of the moments.
Between steps `shard_map` has whole arrays, padded where ZeRO splits them; `pmap` has stacks with a
row for each device.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from adamx.core import paths
from adamx.core.norms import mapped_axes
from adamx.core.step import step as take_step
from adamx.parallel.collectives import average, reduced
from adamx.parallel.loss import Outcome, Run, gradient, varied
from adamx.parallel.shardings import has, is_spec
from adamx.parallel.spec import DataParallel, Task, checked, spread_batch, ways
from adamx.parallel.zero import Zero
from adamx.parallel.zero_state import Parts


def shard_mapped(task: Task) -> DataParallel:
    """Training by `shard_map` over one axis of the mesh; other axes are left to the compiler."""
    for path, spec in paths.flatten(task.specs, is_leaf=is_spec)[0]:
        if has(spec, task.axis):
            raise ValueError(
                f"{paths.name(path)}: `param_specs` splits it over {task.axis!r}, but "
                "how='shard_map' replicates parameters over that axis: use how='jit'"
            )
    parts = Parts.of(task)
    parts.check()
    body = jax.shard_map(
        _body(task, parts.plan),
        mesh=task.mesh,
        in_specs=(Run(P(), parts.specs, P(), P()), P(task.axis)),
        out_specs=(Run(P(), parts.specs, P(), P()), P()),
        axis_names={task.axis},
    )
    params, copied = task.placed(task.specs), task.copied
    stored = Run(params, parts.placed, copied, copied)
    step = jax.jit(body, donate_argnums=task.donated, out_shardings=(stored, None))
    return ways(
        task,
        stepped=step,
        place=lambda batch: spread_batch(task, batch),
        stored=stored,
        plain=stored._replace(state=parts.plain),
        report=parts.report(),
        pack=lambda run: run._replace(state=parts.pad(run.state)),
        unpack=lambda run: run._replace(state=parts.unpad(run.state)),
    )


def pmapped(task: Task) -> DataParallel:
    """Training by `pmap` over all devices of the mesh."""
    if len(task.mesh.shape) > 1:
        raise ValueError(f"how='pmap' needs a mesh of one axis, got {tuple(task.mesh.shape)}")
    if any(has(spec, task.axis) for spec in jax.tree.leaves(task.specs, is_leaf=is_spec)):
        raise ValueError("how='pmap' copies parameters to all devices: leave out `param_specs`")
    task = task._replace(mesh=Mesh(task.mesh.devices, (task.axis,)))  # pmap's own axes are Auto
    parts, devices = Parts.of(task), list(task.mesh.devices.flat)
    parts.check()
    step = jax.pmap(
        _body(task, parts.plan),
        task.axis,
        out_axes=(0, None),
        devices=None if devices == jax.devices() else devices,
        donate_argnums=task.donated,
    )
    rows, copied = NamedSharding(task.mesh, P(task.axis)), task.copied

    def place(x: Any) -> Any:
        x = x if isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) else np.asarray(x)
        if jax.process_count() > 1:  # each process passes its own part
            count = jax.local_device_count()
            return x.reshape(count, x.shape[0] // count, *x.shape[1:])
        shape = (task.devices, x.shape[0] // task.devices, *x.shape[1:])
        if isinstance(x, jax.ShapeDtypeStruct):
            return x.update(shape=shape, sharding=rows)
        return jax.device_put(x.reshape(shape), rows)

    def pack(run: Run) -> Run:
        each = jax.tree.map(parts.copies, run._replace(state=None))
        return each._replace(state=parts.stack(run.state))

    def unpack(run: Run) -> Run:
        first = jax.tree.map(lambda x: x[0], run._replace(state=None))
        return first._replace(state=parts.unstack(run.state))

    train = ways(
        task,
        stepped=step,
        place=lambda batch: jax.tree.map(place, checked(task, batch)),
        stored=rows,
        plain=Run(copied, parts.plain, copied, copied),
        report=parts.report(),
        pack=pack,
        unpack=unpack,
    )
    return train if jax.process_count() == 1 else _of_processes(train, task.mesh, rows.spec)


def _of_processes(train: DataParallel, mesh: Mesh, spec: P) -> DataParallel:
    """`pmap` over several processes: each one holds only the rows of its own devices."""
    local = functools.partial(
        multihost_utils.global_array_to_host_local_array, global_mesh=mesh, pspecs=spec
    )
    whole = functools.partial(
        multihost_utils.host_local_array_to_global_array, global_mesh=mesh, pspecs=spec
    )
    return train._replace(
        init=lambda *args, **kwargs: local(train.init(*args, **kwargs)),
        spread=lambda run: local(train.spread(run)),
        collect=lambda run: train.collect(whole(run)),
    )


def _body(task: Task, plan: Zero | None) -> Callable[[Run, Any], tuple[Run, Outcome]]:
    """The step of one device."""

    def step(run: Run, batch: Any) -> tuple[Run, Outcome]:
        key, used = (None, None) if run.key is None else jax.random.split(run.key)
        if used is not None:
            used = jax.random.fold_in(used, lax.axis_index(task.axis))
        mine = run._replace(params=each(run.params), model=each(run.model))
        grads, outcome, model = gradient(task.loss, mine, batch, used)
        outcome = reduced(outcome, task.axis, lax.psum)
        model = reduced(model, task.axis, lax.pmax)  # a count of steps is the same everywhere
        value = {"value": outcome.loss}
        if plan is None:
            grads = average(grads, task.axis, task.reduce_dtype)
            params, state = take_step(task.opt, run.params, run.state, grads, **value)
        else:
            grads = plan.scatter(grads, task.reduce_dtype)
            with plan.within():
                part = plan.take(run.params)
                part, state = take_step(task.opt, part, run.state, grads, **value)
            params = plan.gather(part)
        return Run(params, state, model, key), outcome

    def each(tree: Any) -> Any:
        """Replicated arrays, marked as varying per device: else JAX sums their gradients itself."""
        tracked = mapped_axes.varying(lax.axis_index(task.axis))
        return jax.tree.map(lambda x: varied(x, tracked), tree)

    return step
