# SPDX-License-Identifier: Apache-2.0
"""The input and the result of every way of training in parallel."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from adamx.core import paths
from adamx.parallel.loss import Loss, Outcome, Run, checked_run
from adamx.parallel.lower import check_layout, lowered
from adamx.parallel.shardings import Report, has, is_spec


class Task(NamedTuple):
    """The checked arguments of `data_parallel`; `shapes` and `specs` are the parameters'."""

    loss: Loss
    opt: Any
    shapes: Any
    specs: Any
    mesh: Mesh
    axis: str
    zero: bool
    reduce_dtype: DTypeLike | None
    memory_kind: str | None
    multiple: int
    donate: bool

    @property
    def donated(self) -> tuple[int, ...]:
        """The numbers of a step's arguments whose memory it may reuse."""
        return (0,) if self.donate else ()

    @property
    def copied(self) -> NamedSharding:
        """The sharding of replicated arrays."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def devices(self) -> int:
        """The number of devices over which a batch is split."""
        return self.mesh.shape[self.axis]

    def placed(self, specs: Any) -> Any:
        """A tree of `PartitionSpec`s as shardings on the mesh."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=is_spec)


class DataParallel(NamedTuple):
    """One training setup. Call `step` in the loop, the rest for setup and checkpoints.

    Attributes:
      init: `(params, model=None, key=None) -> run`, the run before the first step. It copies its
        arguments: no buffer is shared.
      step: `(run, batch) -> (run, outcome)`. The input run is donated. Batches are whole; with
        several processes each passes its own part. It returns before the step is done, but on
        virtual devices of a CPU, where it waits at every eighth.
      lower: `(run, batch) -> jax.stages.Lowered`, the program of `step` from shapes alone. Nothing
        is placed or run, so that the mesh may be one of a topology description
        (`jax.experimental.topologies`): a step compiles for devices that are not there.
      collect: converts a run to the layout of one device, in whole arrays.
      spread: the inverse of `collect`.
      like: from `(params, model=None, key=None)` to the shapes and shardings of a collected run,
        to restore a checkpoint into.
      report: what ZeRO could not split.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> from adamx import parallel
      >>> params = jax.ShapeDtypeStruct((256, 64), jnp.float32)
      >>> batch = jax.ShapeDtypeStruct((32, 256), jnp.float32)
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch @ params) ** 2)
      >>> train = parallel.data_parallel(loss_fn, adamx.adamw(1e-3, storage="int8"), params)
      >>> program = train.lower(jax.eval_shape(train.init, params), batch).compile()
      >>> kernel, codes, count, rows = 4 * 256 * 64, 2 * 256 * 64, 4, 4 * 32 * 256 // 8
      >>> program.memory_analysis().argument_size_in_bytes == kernel + codes + count + rows
      True
    """

    init: Callable[..., Run]
    step: Callable[[Run, Any], tuple[Run, Outcome]]
    lower: Callable[[Run, Any], jax.stages.Lowered]
    collect: Callable[[Run], Run]
    spread: Callable[[Run], Run]
    like: Callable[..., Run]
    report: Report


def ways(
    task: Task,
    stepped: Any,
    place: Callable[[Any], Any],
    stored: Any,
    plain: Run,
    report: Report,
    pack: Callable[[Run], Run] = lambda run: run,
    unpack: Callable[[Run], Run] = lambda run: run,
) -> DataParallel:
    """The functions around a step, which is jitted or mapped, of a run and of a placed batch.

    `stored` and `plain` are the shardings of a run between steps, and of a collected run. `pack`
    makes the first of the second, under `jit`, and `unpack` the second of the first.
    """

    def first(params: Any, model: Any, key: Any) -> Run:
        return Run(params, task.opt.init(params), model, key)

    def copied(function: Callable[..., Run], shardings: Any) -> Callable[..., Run]:
        """Copies the results, so that a step may donate them and the arguments stay valid."""

        def fresh(*args: Any) -> Run:
            return jax.tree.map(jnp.copy, function(*args))

        return jax.jit(fresh, out_shardings=shardings)

    begun = copied(lambda *args: pack(first(*args)), stored)

    def init(params: Any, model: Any = None, key: Any = None) -> Run:
        leaves, treedef = paths.flatten(task.shapes)
        for (path, told), p in zip(leaves, treedef.flatten_up_to(params), strict=True):
            _check_shape(path, told, p)
        given = Run(params, None, model, key)
        params, _, model, key = jax.device_put(from_host(given), plain._replace(state=None))
        return begun(params, model, key)

    def like(params: Any, model: Any = None, key: Any = None) -> Run:
        shapes = jax.eval_shape(first, params, model, key)
        over = jax.tree.broadcast(plain, shapes)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, over
        )

    def between() -> Run:
        return jax.eval_shape(init, task.shapes)

    def step(run: Run, batch: Any) -> tuple[Run, Outcome]:
        run, batch = checked_run("run", run), place(batch)
        try:
            return stepped(run, batch)
        except (TypeError, ValueError):
            if jax.process_count() == 1:  # of several, each has a part of what `between` is
                check_layout(between(), run, _TO_SPREAD)
            raise

    def lower(run: Run, batch: Any) -> jax.stages.Lowered:
        return lowered(stepped, run, batch, like=between(), stored=stored, place=place)

    whole, parts = copied(unpack, plain), copied(pack, stored)
    return DataParallel(
        init=init,
        step=paced(step) if _is_virtual(task.mesh) else step,
        lower=lower,
        collect=lambda run: whole(checked_run("run", run)),
        spread=lambda run: parts(checked_run("run", run)),
        like=like,
        report=report,
    )


_TO_SPREAD = "a run that was collected or restored goes through `train.spread` first"


def _is_virtual(mesh: Mesh) -> bool:
    """Whether the devices of this process are parts of one CPU."""
    return len(mesh.local_devices) > 1 and mesh.local_devices[0].platform == "cpu"


def paced(
    step: Callable[[Run, Any], tuple[Run, Outcome]], every: int = 8
) -> Callable[[Run, Any], tuple[Run, Outcome]]:
    """`step`, which waits at every eighth call until it is done.

    The devices of a CPU share its threads. Where many steps are queued, one device may be late for
    a collective by more than XLA's limit, which ends the process.
    """
    calls = itertools.count(1)

    def call(run: Run, batch: Any) -> tuple[Run, Outcome]:
        run, outcome = step(run, batch)
        if next(calls) % every == 0 and not isinstance(outcome.loss, Tracer):
            jax.block_until_ready(outcome.loss)
        return run, outcome

    return call


def _check_shape(path: Any, told: Any, p: Any) -> None:
    if told.shape != jnp.shape(p):
        raise ValueError(
            f"{paths.name(path)}: `data_parallel` was given shape {told.shape}, `init` is given "
            f"{jnp.shape(p)}"
        )


def checked(task: Task, batch: Any) -> Any:
    """The batch; raises if a leaf can't be split over the devices, and names the leaf."""
    processes = jax.process_count()
    for path, leaf in paths.flatten(batch)[0]:
        shape, is_global = jnp.shape(leaf), _is_global(leaf)
        over = task.devices * task.loss.micro_batches // (1 if is_global else processes)
        if not shape or shape[0] % over:
            parts = task.loss.micro_batches
            each = f" x {parts} micro-batches" if parts > 1 else ""
            raise ValueError(
                f"batch {paths.name(path)}: a first dimension of {shape[0] if shape else 'none'} "
                f"can't be spread over {task.devices} devices{each}"
            )
    return batch


def spread_batch(task: Task, batch: Any) -> Any:
    """A batch as arrays over the mesh, or its shapes; of several processes each has its part."""
    sharding = NamedSharding(task.mesh, PartitionSpec(task.axis))

    def one(x: Any) -> Any:
        if isinstance(x, Tracer):  # in the caller's `jit` or `scan`
            return jax.device_put(x, sharding)
        held = getattr(x, "sharding", None)
        if isinstance(held, NamedSharding) and held.mesh == task.mesh and has(held.spec, task.axis):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return x.update(sharding=sharding)
        if jax.process_count() > 1 and not _is_global(x):
            return jax.make_array_from_process_local_data(sharding, np.asarray(x))
        return jax.device_put(x, sharding)

    return jax.tree.map(one, checked(task, batch))


def from_host(tree: Any) -> Any:
    """Arrays of one process as NumPy arrays, which `jit` assumes equal on all processes."""
    if jax.process_count() == 1:
        return tree

    def one(x: Any) -> Any:
        if isinstance(x, jax.Array) and not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return np.asarray(x) if x.is_fully_addressable else x
        return x

    return jax.tree.map(one, tree)


def _is_global(x: Any) -> bool:
    """Whether `x` is a whole batch, not the part of one process."""
    if jax.process_count() == 1 or isinstance(x, Tracer):
        return True
    return isinstance(x, jax.Array) and len(x.sharding.device_set) > jax.local_device_count()
