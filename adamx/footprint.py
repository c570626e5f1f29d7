# SPDX-License-Identifier: Apache-2.0
"""How many bytes a training run keeps: parameters, gradients and all that an optimizer remembers.

Counted from shapes alone, so that it costs no memory to ask about a model that fits on no machine
at hand. Activations and temporary arrays are not part of it.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from adamx.core import dtypes, paths
from adamx.landing import LandingState

Part = Literal["parameters", "gradients", "moments", "landing"]

# The shape that one device holds of an array, from the part that it belongs to, the path of its
# parameter, and its whole shape.
Shard = Callable[[Part, str, tuple[int, ...]], tuple[int, ...]]


class Footprint(NamedTuple):
    """Bytes, by what they are for.

    Attributes:
      size: how many parameters there are, not in bytes and whatever their sharding.
      parameters: the parameters themselves.
      gradients: one for each parameter, in its dtype.
      moments: whatever else the optimizer keeps for each parameter.
      landing: what the landing keeps of each parameter beyond its dtype.
      other: what is kept once, such as the count of steps.
    """

    size: float
    parameters: float
    gradients: float
    moments: float
    landing: float
    other: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self[1:])

    @property
    def per_parameter(self) -> "Footprint":
        """The same figures divided by the number of parameters."""
        return Footprint(*(figure / max(self.size, 1) for figure in self))

    def __str__(self) -> str:
        figures = [*self._asdict().items(), ("total", self.total)][1:]
        width = len(f"{self.total:,}")
        head = f"{'':10}  {'bytes':>{width}}  per parameter"
        rows = [f"{k:10}  {v:>{width},}  {v / max(self.size, 1):13.3f}" for k, v in figures]
        return "\n".join([head, *rows])


def nbytes(
    opt: optax.GradientTransformation, params: Any, *, shard: Shard | None = None
) -> Footprint:
    """The bytes of a run with this optimizer and these parameters; nothing is allocated.

    Args:
      opt: any Optax transformation.
      params: the parameters, as arrays or as `jax.ShapeDtypeStruct`s.
      shard: what one device holds, a function of an array's part (a field of `Footprint`), its
        parameter's path and its shape, to the shape of the shard. None counts whole arrays.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> params = {"kernel": jax.ShapeDtypeStruct((32768, 32768), jnp.bfloat16)}
      >>> print(adamx.nbytes(adamx.adamw(1e-3, storage="bfloat16"), params))
                          bytes  per parameter
      parameters  2,147,483,648          2.000
      gradients   2,147,483,648          2.000
      moments     4,294,967,296          4.000
      landing                 0          0.000
      other                   4          0.000
      total       8,589,934,596          8.000
    """
    held = shard or (lambda part, path, shape: shape)
    owners = dict(jax.tree_util.tree_flatten_with_path(params)[0])
    found = dict.fromkeys(Footprint._fields, 0)

    def count(part: Part, path: KeyPath, leaf: Any) -> None:
        shape = held(part, paths.name(path), jnp.shape(leaf))
        found[part] += math.prod(shape) * dtypes.of(leaf).itemsize

    for path, leaf in owners.items():
        found["size"] += math.prod(jnp.shape(leaf))
        count("parameters", path, leaf)
        count("gradients", path, leaf)
    state = jax.eval_shape(opt.init, params)
    for part, path, leaf in _parts(state):
        owner = paths.owner(path, leaf, owners)
        if owner is None:
            found["other"] += leaf.size * leaf.dtype.itemsize
        else:
            count(part, owner, leaf)
    return Footprint(**found)


def _parts(state: optax.OptState) -> Iterator[tuple[Part, KeyPath, Any]]:
    """Every array of the state with its path, a landing's told from the others."""

    def is_landing(node: Any) -> bool:
        return isinstance(node, LandingState)

    for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_landing)[0]:
        part = "landing" if is_landing(node) else "moments"
        for inner, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
            yield part, path + inner, leaf
