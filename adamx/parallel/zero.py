# SPDX-License-Identifier: Apache-2.0
"""ZeRO-1 for functions mapped over devices by `pmap` or `shard_map`.

Each array is split along one dimension into as many equal parts as there are devices. A device gets
the mean gradient of its part (`scatter`, a reduce-scatter) and updates its part of the parameters
(`take`) with its part of the moments. Then all devices get the whole parameters (`gather`, an
all-gather). Scalars stay whole.

Dimensions are padded with zeros to a fixed multiple, so that shapes do not depend on the number of
devices as long as that divides the multiple; else they are padded to a multiple of that number.
"""

import contextlib
import math
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from adamx.core import dtypes, paths, shards
from adamx.core.shards import Cut, Cuts, Shape
from adamx.parallel import collectives
from adamx.parallel.shardings import is_spec

MULTIPLE = 64


class Zero(NamedTuple):
    """How the leaves of a tree of parameters are split over one mapped axis.

    Attributes:
      axis_name: the mapped axis.
      devices: the number of devices along it.
      multiple: the multiple to which dimensions are padded.
      leaves: the cut of every leaf, in the order of `jax.tree.leaves`, with the leaf's name.
    """

    axis_name: str
    devices: int
    multiple: int
    leaves: tuple[tuple[str, Cut], ...]

    def within(self) -> contextlib.AbstractContextManager[None]:
        """A context in which an optimizer treats shards as parts of whole arrays."""
        return shards.cutting(Cuts(self.axis_name, self.leaves))

    def scatter(self, grads: Any, dtype: DTypeLike | None = None) -> Any:
        """From each device's own gradient to its part of their mean, a reduce-scatter."""

        def scattered(g: jax.Array, cut: Cut) -> jax.Array:
            return dtypes.by_part(lambda part: self._scattered(part, cut, dtype), g)

        return self._map(scattered, grads)

    def take(self, tree: Any) -> Any:
        """This device's part of whole arrays."""
        return self._map(self._taken, tree)

    def gather(self, tree: Any) -> Any:
        """From each device's part to the whole arrays, an all-gather."""

        def gathered(x: jax.Array, cut: Cut) -> jax.Array:
            return dtypes.by_part(lambda part: self._gathered(part, cut), x)

        return self._map(gathered, tree)

    def pad(self, x: Any, cut: Cut, blank: Any = 0) -> Any:
        """A whole array, padded with `blank` to the total size of the devices' parts."""
        if cut.dim is None:
            return x
        missing = self.padded(cut)[cut.dim] - cut.shape[cut.dim]
        widths = [(0, missing if i == cut.dim else 0) for i in range(len(cut.shape))]
        blank = jnp.asarray(blank).astype(x.dtype)
        return jnp.pad(x, widths, constant_values=blank) if missing else x

    def unpad(self, x: Any, cut: Cut) -> Any:
        """The whole array within a padded one."""
        return x if x.shape == cut.shape else lax.slice(x, [0] * x.ndim, cut.shape)

    def padded(self, cut: Cut) -> Shape:
        """The shape of a padded array."""
        if cut.dim is None:
            return cut.shape
        step = self.multiple if self.multiple % self.devices == 0 else self.devices
        shape = list(cut.shape)
        shape[cut.dim] = -(-shape[cut.dim] // step) * step
        return tuple(shape)

    def part(self, cut: Cut) -> Shape:
        """The shape of one device's part."""
        shape = list(self.padded(cut))
        if cut.dim is not None:
            shape[cut.dim] //= self.devices
        return tuple(shape)

    def spec(self, cut: Cut) -> PartitionSpec:
        """The `PartitionSpec` of a padded array."""
        if cut.dim is None:
            return PartitionSpec()
        return PartitionSpec(*[None] * cut.dim, self.axis_name)

    def _map(self, function: Any, tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        rows = zip(leaves, self.leaves, strict=True)
        return treedef.unflatten([function(x, cut) for x, (_, cut) in rows])

    def _scattered(self, g: jax.Array, cut: Cut, dtype: DTypeLike | None) -> jax.Array:
        sent = collectives.sent(g, dtype)
        if cut.dim is None:
            return lax.pmean(sent, self.axis_name)
        sent = self.pad(sent, cut)
        total = lax.psum_scatter(sent, self.axis_name, scatter_dimension=cut.dim, tiled=True)
        return total / self.devices

    def _taken(self, x: jax.Array, cut: Cut) -> jax.Array:
        if cut.dim is None:
            return x
        size = self.part(cut)[cut.dim]
        start = lax.axis_index(self.axis_name) * size
        return lax.dynamic_slice_in_dim(self.pad(x, cut), start, size, cut.dim)

    def _gathered(self, x: jax.Array, cut: Cut) -> jax.Array:
        if cut.dim is None:
            return x
        whole = lax.all_gather(x, self.axis_name, axis=cut.dim, tiled=True, to="invarying")
        return self.unpad(whole, cut)


def zero(
    params: Any, axis_name: str, devices: int, multiple: int = MULTIPLE, specs: Any = None
) -> Zero:
    """The plan by which ZeRO-1 splits these parameters.

    Args:
      params: the parameters, as arrays or as `jax.ShapeDtypeStruct`s.
      axis_name: the mapped axis.
      devices: the number of devices along it.
      multiple: the multiple to which split dimensions are padded. Shapes are the same for all
        numbers of devices that divide it.
      specs: `PartitionSpec`s of the parameters over other axes; dimensions that these split are
        avoided if another one divides.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> plan = zero({"kernel": jnp.ones((10, 64)), "bias": jnp.ones(10)}, "data", devices=8)
      >>> [(name, cut.dim, plan.padded(cut), plan.part(cut)) for name, cut in plan.leaves]
      [('bias', 0, (64,), (8,)), ('kernel', 1, (10, 64), (10, 8))]
    """
    leaves = paths.flatten(params)[0]
    twice = [name for name, n in Counter(paths.names(params)).items() if n > 1]
    if twice:
        raise ValueError(f"{twice[0]}: two parameters have this path; paths must be unique")
    everywhere = [PartitionSpec()] * len(leaves)
    over = everywhere if specs is None else jax.tree.leaves(specs, is_leaf=is_spec)
    found = []
    for (path, leaf), spec in zip(leaves, over, strict=True):
        shape = tuple(jnp.shape(leaf))
        free = [i for i in range(len(shape)) if i >= len(spec) or spec[i] is None]
        found.append((paths.name(path), Cut(shape, _dim(shape, free, multiple))))
    return Zero(axis_name, devices, multiple, tuple(found))


def _dim(shape: Shape, free: list[int], multiple: int) -> int | None:
    """The first dimension that `multiple` divides, free ones first; else that of least padding."""
    if not shape or not math.prod(shape):
        return None
    fits = [i for i in (*free, *range(len(shape))) if shape[i] % multiple == 0]
    if fits:
        return fits[0]
    return min(range(len(shape)), key=lambda i: -(-shape[i] // multiple) / shape[i])
