# SPDX-License-Identifier: Apache-2.0
"""What a storage is: how moments rest between steps, as arrays of the parameter's own shape.

A storage knows the kinds of the moments that it holds and nothing of the rule that they serve.
It is an elementwise map, so the parameter's PartitionSpec fits every array it makes.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adamx.core.rule import Kind

Arrays = dict[str, jax.Array]
Kinds = Mapping[str, Kind]


class Storage(Protocol):
    """How the moments of one leaf rest. Implementations are frozen, hashable dataclasses.

    Attributes:
      name: what errors call it.
      seed: names the noise of `encode`, or None where rounding needs none.
    """

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> int | None: ...

    def fields(self, kinds: Kinds) -> tuple[str, ...]:
        """The names of the arrays: those of the moments, where the state may stay Optax's."""
        ...

    def init(self, like: ArrayLike, kinds: Kinds, start: Mapping) -> Arrays:
        """The arrays of a leaf `like` this one before the first step, with its sharding."""
        ...

    def decode(self, arrays: Arrays, kinds: Kinds) -> Arrays:
        """The moments, in at least float32."""
        ...

    def encode(self, moments: Arrays, kinds: Kinds, old: Arrays, key: jax.Array) -> Arrays:
        """The arrays that hold `moments`, in the dtypes and shapes of `old`; `key` is for noise."""
        ...

    def ends(self, arrays: Arrays, kinds: Kinds) -> tuple[jax.Array | float, jax.Array | float]:
        """Which elements of the square, or the magnitude, rest at the least number but zero that
        the storage has, and which at the largest; 0.0 where there is no such moment."""
        ...

    def complaint(self, arrays: Arrays, kinds: Kinds, gradient: jnp.dtype) -> str:
        """Why `arrays` are not this storage's for such a gradient, or an empty string."""
        ...


# A storage by name or as such; a table of path patterns, of which the first that matches counts; or
# a function of a leaf's path and global shape.
StorageLike = (
    str
    | Storage
    | Mapping[str, "str | Storage"]
    | Callable[[str, tuple[int, ...]], "str | Storage"]
)
