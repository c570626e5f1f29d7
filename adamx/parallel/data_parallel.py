# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training in one call, with any of JAX's ways to spread work over devices.

    way            what your loss sees                 who moves data between devices
    "jit"          the whole batch, sharded arrays     the compiler, from the shardings
    "shard_map"    one device's part of the batch      this package: pmean, or ZeRO's collectives
    "pmap"         the same                            the same

All take the same steps. The layout of a run between steps differs: `collect` converts a run to the
layout of one device, for checkpoints and for changing the way, and `spread` converts it back.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh
from jax.typing import DTypeLike

from adamx.core.hyperparameters import check_count, check_optimizer
from adamx.parallel.by_device import pmapped, shard_mapped
from adamx.parallel.by_jit import meshed
from adamx.parallel.collectives import check_dtype
from adamx.parallel.loss import Loss
from adamx.parallel.shardings import specs_of
from adamx.parallel.spec import DataParallel, Task
from adamx.parallel.zero import MULTIPLE

How = Literal["jit", "shard_map", "pmap"]


def data_parallel(
    loss_fn: Callable[..., Any],
    opt: optax.GradientTransformation,
    params: Any,
    mesh: Mesh | None = None,
    *,
    how: How = "jit",
    axis: str = "data",
    zero: bool = False,
    param_specs: Any = None,
    has_aux: bool = False,
    micro_batches: int = 1,
    reduce_dtype: DTypeLike | None = None,
    memory_kind: str | None = None,
    multiple: int = MULTIPLE,
    donate: bool = True,
) -> DataParallel:
    """Training that spreads batches over the devices of a mesh.

    Args:
      loss_fn: the mean loss of a batch: `loss_fn(params, batch)`, with `model=` and `key=` if
        `init` got them. Returns the loss, or a tuple of the loss, then the new model state if
        there is one, then `aux` with `has_aux`.
      opt: any Optax transformation. With ZeRO under `shard_map` and `pmap` it sees shards: links
        that combine elements must then be adamx's own (`adamx.clip_by_global_norm` …).
      params: the parameters, or `jax.ShapeDtypeStruct`s of them.
      mesh: the mesh, of Auto or Explicit axes; None for one axis over all devices.
      how: one of the three ways.
      axis: the axis of the mesh over which batches are split, along their first dimension.
      zero: whether moments are split over that axis too, instead of replicated (ZeRO-1).
      param_specs: `PartitionSpec`s of the parameters, for FSDP and tensor parallelism. With
        `"shard_map"` they may only use other axes than `axis`; `"pmap"` allows none. None takes
        the specs that the parameters have on the mesh.
      has_aux: whether `loss_fn` returns more than the loss.
      micro_batches: the number of parts of a batch that a step processes one after the other.
      reduce_dtype: the dtype in which gradients are sent, such as `"bfloat16"`; with `"jit"` the
        compiler decides.
      memory_kind: where moments are stored between steps, such as `"pinned_host"`; for `"jit"`.
      multiple: the multiple to which ZeRO pads under `shard_map` and `pmap`, see
        `adamx.parallel.zero`.
      donate: whether a step may reuse the memory of its input run.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch["x"] @ params - batch["y"]) ** 2)
      >>> batch = {"x": jnp.ones((16, 3)), "y": jnp.ones(16)}
      >>> train = data_parallel(loss_fn, adamx.adam(0.1), jnp.zeros(3), how="pmap", zero=True)
      >>> run = train.init(jnp.zeros(3))
      >>> run, outcome = train.step(run, batch)
      >>> print(f"{outcome.loss:.3f}, {train.collect(run).params[0]:.3f}")
      1.000, 0.100
    """
    check_optimizer(opt=opt)
    mesh = jax.make_mesh((jax.device_count(),), (axis,), (AxisType.Auto,)) if mesh is None else mesh
    if how not in _WAYS:
        raise ValueError(f"`how` must be one of {', '.join(map(repr, _WAYS))}, got {how!r}")
    if axis not in mesh.shape:
        raise ValueError(f"`axis` must be one of the mesh's {tuple(mesh.shape)}, got {axis!r}")
    if how == "jit" and reduce_dtype is not None:
        raise ValueError("`reduce_dtype` needs how='shard_map' or 'pmap': in 'jit' XLA reduces")
    if how != "jit" and memory_kind is not None:
        raise ValueError(f"`memory_kind` needs how='jit', got {how!r}")
    check_dtype("reduce_dtype", reduce_dtype)
    check_count(micro_batches=micro_batches)
    task = Task(
        Loss(loss_fn, has_aux, micro_batches),
        optax.with_extra_args_support(opt),
        jax.tree.map(lambda p: jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)), params),
        specs_of(params, mesh, param_specs),
        mesh,
        axis,
        zero=zero,
        reduce_dtype=reduce_dtype,
        memory_kind=memory_kind,
        multiple=multiple,
        donate=donate,
    )
    return _WAYS[how](task)


_WAYS = {"jit": meshed, "shard_map": shard_mapped, "pmap": pmapped}
