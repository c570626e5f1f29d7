# SPDX-License-Identifier: Apache-2.0
"""The interface of a storage: how moments are stored between steps.

A storage knows the kinds of its moments and nothing about the rule that uses them. It is an
elementwise map to arrays of the parameter's shape, so the parameter's PartitionSpec fits them all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from adamx.core.random_bits import Key, Seed
from adamx.core.rule import Kind

Arrays = dict[str, jax.Array]
Kinds = Mapping[str, Kind]


class Storage(Protocol):
    """How the moments of one leaf are stored. Implementations are frozen, hashable dataclasses.

    Attributes:
      name: its name in error messages.
      seed: the seed of the noise in `encode`; None if it needs no noise. It may be traced, so that
        the members of a `vmap` round with different bits.
    """

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> Seed | None: ...

    def fields(self, kinds: Kinds) -> tuple[str, ...]:
        """The names of the stored arrays.

        Args:
          kinds: the kind of each moment, by the moment's name.

        Returns:
          One name per array. If they are the moments' names, the state keeps Optax's class.
        """
        ...

    def init(self, like: ArrayLike, kinds: Kinds, start: Mapping[str, Any]) -> Arrays:
        """The stored arrays before the first step.

        Args:
          like: an array with the parameter's shape, dtype and sharding.
          kinds: the kind of each moment, by name.
          start: the initial value of each moment that does not start at zero, by name.

        Returns:
          An array for each name in `fields`, with the shape and sharding of `like`.
        """
        ...

    def decode(self, arrays: Arrays, kinds: Kinds) -> Arrays:
        """The moments from their stored arrays.

        Args:
          arrays: the stored arrays, by the names in `fields`.
          kinds: the kind of each moment, by name.

        Returns:
          The moments by name, in at least float32.
        """
        ...

    def encode(self, moments: Arrays, kinds: Kinds, old: Arrays, key: Key) -> Arrays:
        """The stored arrays of new moments.

        Args:
          moments: the new moments by name, in at least float32.
          kinds: the kind of each moment, by name.
          old: the stored arrays that the result replaces.
          key: the key of the random bits for stochastic rounding.

        Returns:
          Arrays with the names, dtypes and shapes of `old`.
        """
        ...

    def ends(self, arrays: Arrays, kinds: Kinds) -> tuple[jax.Array | float, jax.Array | float]:
        """Which squares (or magnitudes) are stored at either end of the storage's range.

        Args:
          arrays: the stored arrays, by the names in `fields`.
          kinds: the kind of each moment, by name.

        Returns:
          A boolean array for the smallest nonzero value and one for the largest; 0.0 for both if
          there is no square and no magnitude.
        """
        ...

    def complaint(self, arrays: Arrays, kinds: Kinds, gradient: jnp.dtype) -> str:
        """Why `arrays` do not fit this storage and gradient.

        Args:
          arrays: the stored arrays, by the names in `fields`.
          kinds: the kind of each moment, by name.
          gradient: the dtype of the gradient.

        Returns:
          The words of an error message; empty if the arrays fit.
        """
        ...


# A storage or its name; a table of path patterns, where the first match decides; or a function of a
# leaf's path and global shape.
StorageLike = (
    str
    | Storage
    | Mapping[str, "str | Storage"]
    | Callable[[str, tuple[int, ...]], "str | Storage"]
)
