# SPDX-License-Identifier: Apache-2.0
"""The bytes of a training run: parameters, gradients and the optimizer's state.

They are counted from shapes alone: nothing is allocated, and the model may be larger than any
machine at hand. Activations and temporary arrays are not counted.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from adamx.core import dtypes, hyperparameters, paths
from adamx.core.state_paths import owned
from adamx.landing import LandingState

Part = Literal["parameters", "gradients", "moments", "landing"]

# From an array's part, its parameter's path and its whole shape to the shape on one device.
Shard = Callable[[Part, str, tuple[int, ...]], tuple[int, ...]]


class Footprint(NamedTuple):
    """Bytes, by what they are for.

    Attributes:
      size: the number of parameters, not in bytes and whatever their sharding.
      parameters: the parameters themselves.
      gradients: one for each parameter, in its dtype.
      moments: everything that the optimizer stores for each parameter, but for the landing.
      landing: what the landing stores for each parameter, beyond the parameter itself.
      other: what is stored once, such as the step count.
    """

    size: float
    parameters: float
    gradients: float
    moments: float
    landing: float
    other: float

    @property
    def total(self) -> float:
        """All bytes together."""
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
      shard: from an array's part (a field of `Footprint`), its parameter's path and its shape to
        the shape that one device holds. None counts whole arrays.

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
    hyperparameters.check_optimizer(opt=opt)
    held = shard or (lambda part, path, shape: shape)
    found = dict.fromkeys(Footprint._fields, 0)

    def count(part: Part, path: KeyPath, leaf: Any) -> None:
        shape = held(part, paths.name(path), jnp.shape(leaf))
        found[part] += math.prod(shape) * dtypes.of(leaf).itemsize

    for path, leaf in paths.flatten(params)[0]:
        found["size"] += math.prod(jnp.shape(leaf))
        count("parameters", path, leaf)
        count("gradients", path, leaf)
    state = jax.eval_shape(opt.init, params)
    for part, found_leaf in zip(_parts(state), owned(state, params), strict=True):
        if found_leaf.owner is None:
            found["other"] += found_leaf.leaf.size * found_leaf.leaf.dtype.itemsize
        else:
            count(part, found_leaf.owner, found_leaf.leaf)
    return Footprint(**found)


def _parts(state: optax.OptState) -> list[Part]:
    """For each leaf of the state, whether it is a landing's."""

    def is_landing(node: Any) -> bool:
        return isinstance(node, LandingState)

    found: list[Part] = []
    for node in jax.tree.leaves(state, is_leaf=is_landing):
        part: Part = "landing" if is_landing(node) else "moments"
        found.extend(part for _ in jax.tree.leaves(node))
    return found
