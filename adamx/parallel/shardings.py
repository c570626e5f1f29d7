# SPDX-License-Identifier: Apache-2.0
"""The shardings of an optimizer's state on a mesh: each leaf is placed like its parameter.

`core.state_paths` tells which parameter a leaf belongs to. Leaves of the parameter's shape take the
parameter's `PartitionSpec`; means along some of its dimensions (a factored square, one per block)
what is left of it; leaves of other shapes, as a count, are replicated.
"""

import math
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import KeyPath

from adamx.core import dtypes, paths
from adamx.core.state_paths import owned
from adamx.core.tables import as_text


class Whole(NamedTuple):
    """A leaf of a state that ZeRO could not split.

    Attributes:
      name: the leaf's path in the state.
      shape: the shape that one device holds.
      nbytes: the bytes on each device that splitting would have saved.
    """

    name: str
    shape: tuple[int, ...]
    nbytes: int


class Report(NamedTuple):
    """What ZeRO could not split; prints as a table.

    Attributes:
      axis: the axis over which to split; None if there is none.
      split: the bytes on one device of the leaves that are split.
      whole: the leaves that are not split.
    """

    axis: str | None
    split: int
    whole: tuple[Whole, ...]

    def __str__(self) -> str:
        if self.axis is None:
            return "no axis to split the state over"
        lost = sum(leaf.nbytes for leaf in self.whole)
        head = f"split over {self.axis!r}: {self.split:,} bytes on each device; "
        if not self.whole:
            return head + "all leaves are split"
        rows = [[leaf.name, str(leaf.shape), f"{leaf.nbytes:,}"] for leaf in self.whole]
        rows.append(["all of these", "", f"{lost:,}"])
        return (
            head + "no dimension divides in\n" + as_text(["leaf", "shape", "bytes too many"], rows)
        )


class StateShardings(NamedTuple):
    """The sharding of every leaf of a state, and what ZeRO could not split."""

    shardings: Any
    report: Report


def state_shardings(
    opt: optax.GradientTransformation,
    params: Any,
    mesh: Mesh,
    param_specs: Any = None,
    zero_axis: str | None = None,
    memory_kind: str | None = None,
) -> StateShardings:
    """The shardings of an optimizer's state, for `jit`'s `out_shardings` or for a checkpoint.

    Args:
      opt: any Optax transformation.
      params: the parameters, as arrays or as `jax.ShapeDtypeStruct`s.
      mesh: the mesh.
      param_specs: the parameters' `PartitionSpec`s: a tree, a prefix of one, or one for all. None
        takes those that the parameters have on this mesh, else replicates them.
      zero_axis: an axis over which leaves are split too (ZeRO-1), along the first dimension that it
        divides. The report lists the leaves that have no such dimension, and the cost.
      memory_kind: the memory in which leaves that belong to a parameter are stored, such as
        `"pinned_host"`; None for the device's own. Leaves that `opt.init` itself puts on the host,
        as `health.rewind` can, stay there.

    Returns:
      The shardings, a tree like the state, and the report.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> params = {"kernel": jnp.ones((4, 64)), "bias": jnp.ones(3)}
      >>> mesh = jax.make_mesh((8,), ("data",))
      >>> shardings, report = state_shardings(adamx.adam(1e-3), params, mesh, zero_axis="data")
      >>> print(shardings[0].mu["kernel"].spec)
      P(None, 'data')
      >>> print(report)
      split over 'data': 256 bytes on each device; no dimension divides in
      leaf          shape  bytes too many
      ------------  -----  --------------
      0/mu/bias      (3,)              11
      0/nu/bias      (3,)              11
      all of these                     22
    """
    if zero_axis is not None and zero_axis not in mesh.shape:
        raise ValueError(f"`zero_axis` must be one of {tuple(mesh.shape)}, got {zero_axis!r}")
    owners = [path for path, _ in paths.flatten(params)[0]]
    given = jax.tree.leaves(specs_of(params, mesh, param_specs), is_leaf=is_spec)
    specs = dict(zip(owners, given, strict=True))
    shapes = {path: jax.numpy.shape(leaf) for path, leaf in paths.flatten(params)[0]}
    of_means = specs
    if zero_axis is not None and AxisType.Explicit in mesh.axis_types:
        # There the types of arrays tell how the means of split gradients lie.
        of_means = {k: _with(spec, zero_axis, shapes[k], mesh) or spec for k, spec in specs.items()}
    state = jax.eval_shape(opt.init, params)
    split, whole, shardings = 0, [], []
    spaces = [x.memory_space for x in jax.make_jaxpr(opt.init)(params).out_avals]
    for (path, leaf, owner, is_alike), space in zip(owned(state, params), spaces, strict=True):
        spec, left = specs[owner] if is_alike else PartitionSpec(), None
        if owner is not None and not is_alike:
            left = _left(of_means[owner], shapes[owner], leaf.shape)
            spec = spec if left is None else left
        if zero_axis is not None and owner is not None:
            if left is None or of_means is specs:
                spec = _with(spec, zero_axis, leaf.shape, mesh) or spec
            if has(spec, zero_axis):
                split += _bytes(leaf, spec, mesh)
            elif mesh.shape[zero_axis] > 1:
                whole.append(_whole(path, leaf, spec, mesh, zero_axis))
        kind = memory_kind if owner is not None else None
        if space == jax.memory.Space.Host:
            kind = "pinned_host"
        shardings.append(NamedSharding(mesh, spec, memory_kind=kind))
    return StateShardings(
        jax.tree.unflatten(jax.tree.structure(state), shardings),
        Report(zero_axis, split, tuple(whole)),
    )


def init_sharded(opt: optax.GradientTransformation, params: Any, shardings: Any) -> optax.OptState:
    """`opt.init(params)`, with every leaf created in its sharding (of `state_shardings`).

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt, params = adamx.adam(1e-3), jnp.ones((8, 4))
      >>> mesh = jax.make_mesh((8,), ("data",))
      >>> placed = state_shardings(opt, params, mesh, zero_axis="data")
      >>> init_sharded(opt, params, placed.shardings)[0].mu.addressable_shards[0].data.shape
      (1, 4)
    """
    return jax.jit(opt.init, out_shardings=shardings)(params)


def split(specs: Any, shapes: Any, mesh: Mesh, axis: str | None) -> Any:
    """The `PartitionSpec`s of parameters, split over `axis` too where it divides a dimension."""

    def one(spec: PartitionSpec, leaf: Any) -> PartitionSpec:
        return (axis and _with(spec, axis, leaf.shape, mesh)) or spec

    return jax.tree.map(one, specs, shapes, is_leaf=is_spec)


def specs_of(params: Any, mesh: Mesh, param_specs: Any = None) -> Any:
    """A tree like `params` of their `PartitionSpec`s: those given, else those that they have."""

    if param_specs is None:
        return jax.tree.map(lambda p: _spec(p, mesh), params)

    def below(spec: PartitionSpec | None, part: Any) -> Any:
        return jax.tree.map(lambda p: PartitionSpec() if spec is None else spec, part)

    try:
        return jax.tree.map(below, param_specs, params, is_leaf=lambda x: x is None or is_spec(x))
    except ValueError as e:
        raise ValueError(f"`param_specs` must be a tree like `params`, or a prefix: {e}") from e


def is_spec(x: Any) -> bool:
    """Whether `x` is a leaf of a tree of `PartitionSpec`s."""
    return isinstance(x, PartitionSpec)


def _left(
    spec: PartitionSpec, whole: tuple[int, ...], shape: tuple[int, ...]
) -> PartitionSpec | None:
    """What is left of a parameter's spec for its means: along dimensions that have size 1, or along
    one that is gone; nothing where it may be either of two that are split differently. None for
    other shapes."""
    parts = [*spec, *[None] * (len(whole) - len(spec))]
    if len(shape) == len(whole) and all(a in (1, b) for a, b in zip(shape, whole, strict=True)):
        rows = zip(parts, shape, whole, strict=True)
        return PartitionSpec(*(part if a == b else None for part, a, b in rows))
    gone = [i for i in range(len(whole)) if whole[:i] + whole[i + 1 :] == shape]
    found = {PartitionSpec(*parts[:i], *parts[i + 1 :]) for i in gone}
    return found.pop() if len(found) == 1 else PartitionSpec() if found else None


def _spec(p: Any, mesh: Mesh) -> PartitionSpec:
    sharding = getattr(p, "sharding", None)
    if isinstance(sharding, NamedSharding) and sharding.mesh.shape == mesh.shape:
        return sharding.spec
    return PartitionSpec()


def _with(
    spec: PartitionSpec, axis: str, shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec | None:
    """`spec` with `axis` on the first dimension that it divides; None if there is none."""
    if has(spec, axis):
        return spec
    parts = [*spec, *[None] * (len(shape) - len(spec))]
    for i, size in enumerate(shape):
        names = _names(parts[i])
        pieces = math.prod(mesh.shape[name] for name in names)
        if size and size % (pieces * mesh.shape[axis]) == 0:
            parts[i] = (*names, axis) if names else axis
            return PartitionSpec(*parts)
    return None


def has(spec: PartitionSpec, axis: str) -> bool:
    """Whether a spec splits anything over an axis."""
    return any(axis in _names(part) for part in spec)


def over(spec: PartitionSpec, axes: set[str]) -> PartitionSpec:
    """What a spec splits over these axes."""
    kept = [tuple(name for name in _names(part) if name in axes) for part in spec]
    return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in kept))


def _names(part: Any) -> tuple[str, ...]:
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def _bytes(leaf: Any, spec: PartitionSpec, mesh: Mesh) -> int:
    held = NamedSharding(mesh, spec).shard_shape(leaf.shape)
    return math.prod(held) * dtypes.of(leaf).itemsize


def _whole(path: KeyPath, leaf: Any, spec: PartitionSpec, mesh: Mesh, axis: str) -> Whole:
    held = NamedSharding(mesh, spec).shard_shape(leaf.shape)
    size, n = _bytes(leaf, spec, mesh), mesh.shape[axis]
    return Whole(paths.name(path), held, size - size // n)
