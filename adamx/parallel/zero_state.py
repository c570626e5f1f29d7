# SPDX-License-Identifier: Apache-2.0
"""Converts a state between whole arrays and the parts that devices hold under ZeRO-1."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adamx.core import dtypes, paths
from adamx.core.kernel_use import using
from adamx.core.shards import Cut
from adamx.core.state_paths import owned
from adamx.core.step import step as take_step
from adamx.parallel.elementwise_check import partial_outputs
from adamx.parallel.shardings import Report, Whole, is_spec
from adamx.parallel.spec import Task
from adamx.parallel.zero import Zero, zero


class Parts(NamedTuple):
    """How the leaves of a state are split.

    Attributes:
      task: the task.
      plan: how ZeRO splits parameters; None without ZeRO.
      shapes: the shapes and dtypes of the state's whole leaves.
      cuts: how each leaf is split; None for replicated leaves.
      given: the `PartitionSpec` of each leaf's parameter over other axes of the mesh.
      names: the names of the leaves.
      treedef: the state's structure.
    """

    task: Task
    plan: Zero | None
    shapes: list[Any]
    cuts: list[Cut | None]
    given: list[PartitionSpec]
    names: list[str]
    treedef: Any

    @classmethod
    def of(cls, task: Task) -> "Parts":
        """The parts of a task's state: leaves of a parameter's shape are split like it."""
        state = jax.eval_shape(task.opt.init, task.shapes)
        leaves, treedef = owned(state, task.shapes), jax.tree.structure(state)
        owners = [path for path, _ in paths.flatten(task.shapes)[0]]
        specs = dict(zip(owners, jax.tree.leaves(task.specs, is_leaf=is_spec), strict=True))
        plan, of_owner = None, {}
        if task.zero:
            plan = zero(task.shapes, task.axis, task.devices, task.multiple, task.specs)
            of_owner = dict(zip(owners, (cut for _, cut in plan.leaves), strict=True))
        cuts, given = [], []
        for x in leaves:
            cut = of_owner.get(x.owner) if x.is_alike else None
            cuts.append(None if cut is None or cut.dim is None else cut)
            given.append(specs[x.owner] if x.is_alike else PartitionSpec())
        names, shapes = [paths.name(x.path) for x in leaves], [x.leaf for x in leaves]
        return cls(task, plan, shapes, cuts, given, names, treedef)

    @property
    def specs(self) -> Any:
        """The specs of padded leaves, for `shard_map`."""
        return self.treedef.unflatten([self._spec(cut) for cut in self.cuts])

    @property
    def placed(self) -> Any:
        """The shardings of padded leaves, over all axes of the mesh."""
        return self._placed([True] * len(self.cuts))

    @property
    def plain(self) -> Any:
        """The shardings of whole leaves: the same, but not split where padding is needed."""
        return self._placed([cut and self._padded(cut) == cut.shape for cut in self.cuts])

    def pad(self, state: Any) -> Any:
        """Whole leaves, padded to the total size of the devices' parts."""
        return self._map(self._padding, lambda x: x, state)

    def unpad(self, state: Any) -> Any:
        """The inverse of `pad`."""
        return self._map(self._unpadded, lambda x: x, state)

    def stack(self, state: Any) -> Any:
        """Whole leaves as stacks with a row for each device."""
        return self._map(self._rows, self.copies, state)

    def unstack(self, state: Any) -> Any:
        """The inverse of `stack`."""
        return self._map(self._joined, lambda x: x[0], state)

    def copies(self, x: Any) -> jax.Array:
        """A replicated array, as a stack."""
        return jnp.broadcast_to(x, (self.task.devices, *jnp.shape(x)))

    def check(self) -> None:
        """Raises if a result of the optimizer depends on one shard alone."""
        if self.plan is None:
            return
        struct, cuts = jax.ShapeDtypeStruct, [cut for _, cut in self.plan.leaves]
        leaves, treedef = jax.tree.flatten(self.task.shapes)
        rows = zip(leaves, cuts, strict=True)
        params = treedef.unflatten([struct(self.plan.part(cut), x.dtype) for x, cut in rows])
        rows = zip(self.shapes, self.cuts, strict=True)
        state = self.treedef.unflatten(
            [struct(self.plan.part(cut) if cut else x.shape, x.dtype) for x, cut in rows]
        )
        of_params = [cut.dim for cut in cuts]
        of_state = [None if cut is None else cut.dim for cut in self.cuts]
        axes = [(self.plan.axis_name, self.plan.devices)]
        try:
            with self.plan.within(), using(kernels=False):  # which the check cannot look into
                made = jax.make_jaxpr(self._take_step, axis_env=axes)
                jaxpr = made(params, state, params, struct((), jnp.float32))
        except (TypeError, ValueError) as e:
            raise ValueError(f"the optimizer does not work on shards: {e}; {_INSTEAD}") from e
        names = [name for name, _ in self.plan.leaves] + self.names
        layouts = [*of_params, *of_state, *of_params, None]
        found = partial_outputs(jaxpr, layouts, [*of_params, *of_state])
        given = jax.tree.leaves((params, state))
        for at, (now, before) in enumerate(zip(jaxpr.out_avals, given, strict=True)):
            if now.shape != before.shape:
                found[at] = f"change of shape from {before.shape} to {now.shape}"
        for at, why in found.items():
            raise ValueError(
                f"{names[at]}: with ZeRO the optimizer sees shards, and its result for this one "
                f"({why}) is not a shard of the whole result; {_INSTEAD}"
            )

    def report(self) -> Report:
        """What padding costs on each device."""
        if self.plan is None:
            return Report(None, 0, ())
        split, more = 0, []
        for name, leaf, cut in zip(self.names, self.shapes, self.cuts, strict=True):
            if cut is None:
                continue
            part, size = self.plan.part(cut), dtypes.of(leaf).itemsize
            split += math.prod(part) * size
            excess = math.prod(part) * size - leaf.size * size // self.task.devices
            if self._padded(cut) != cut.shape:
                more.append(Whole(name, part, excess))
        return Report(self.task.axis, split, tuple(more))

    def _take_step(self, grads: Any, state: Any, params: Any, loss: Any) -> Any:
        return take_step(self.task.opt, params, state, grads, value=loss)

    @property
    def _plan(self) -> Zero:
        assert self.plan is not None
        return self.plan

    def _spec(self, cut: Cut | None) -> PartitionSpec:
        return PartitionSpec() if cut is None else self._plan.spec(cut)

    def _placed(self, is_cut: list[Any]) -> Any:
        found = []
        for cut, spec, cuts_too in zip(self.cuts, self.given, is_cut, strict=True):
            parts = list(spec)
            if cut and cut.dim is not None and cuts_too:
                parts += [None] * (cut.dim + 1 - len(parts))
                held = parts[cut.dim]
                held = (held,) if isinstance(held, str) else held or ()
                parts[cut.dim] = (self.task.axis, *held) if held else self.task.axis
            found.append(NamedSharding(self.task.mesh, PartitionSpec(*parts)))
        return self.treedef.unflatten(found)

    def _padded(self, cut: Cut) -> tuple[int, ...]:
        return self._plan.padded(cut)

    def _map(self, of_cut: Callable[..., Any], of_copied: Callable[..., Any], state: Any) -> Any:
        blanks = _blanks(self.task, self.plan, self.treedef)
        rows = zip(self.treedef.flatten_up_to(state), self.cuts, blanks, strict=True)
        return self.treedef.unflatten(
            [of_copied(x) if cut is None else of_cut(x, cut, blank) for x, cut, blank in rows]
        )

    def _padding(self, x: Any, cut: Cut, blank: Any) -> Any:
        return self._plan.pad(x, cut, blank)

    def _unpadded(self, x: Any, cut: Cut, blank: Any) -> Any:
        if x.shape != cut.shape and AxisType.Explicit in self.task.mesh.axis_types:
            x = jax.sharding.reshard(x, self.task.copied)  # a sharded one can't be sliced
        return self._plan.unpad(x, cut)

    def _rows(self, x: Any, cut: Cut, blank: Any) -> jax.Array:
        x, n, dim = self._plan.pad(x, cut, blank), self.task.devices, cut.dim or 0
        x = x.reshape(*x.shape[:dim], n, x.shape[dim] // n, *x.shape[dim + 1 :])
        return jnp.moveaxis(x, dim, 0)

    def _joined(self, x: Any, cut: Cut, blank: Any) -> jax.Array:
        x = jnp.moveaxis(x, 0, cut.dim or 0)
        return self._plan.unpad(x.reshape(self._padded(cut)), cut)


def _blanks(task: Task, plan: Zero | None, treedef: Any) -> list[Any]:
    """The padding value of each leaf: its initial value for a parameter of zero."""
    if plan is None:
        return [0] * treedef.num_leaves
    with plan.within():
        tiny = jax.tree.map(lambda x: jnp.zeros([1] * len(x.shape), x.dtype), task.shapes)
        leaves, found = jax.tree.flatten(task.opt.init(tiny))
    if found != treedef:
        return [0] * treedef.num_leaves
    return [jnp.ravel(x)[0] if jnp.size(x) else 0 for x in map(_plain, leaves)]


def _plain(x: Any) -> Any:
    is_key = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


_INSTEAD = (
    "use links of adamx (`adamx.clip_by_global_norm` …), zero=False, or how='jit', where arrays "
    "are whole"
)
