# SPDX-License-Identifier: Apache-2.0
"""How moments are stored between steps. Each storage is one row in `NAMED`."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.core import paths
from adamx.core.values import value
from adamx.storage.compact import Compact, int4, int8
from adamx.storage.floats import Floats, bfloat16, float32, of_dtypes
from adamx.storage.storage import Arrays, Kinds, Storage, StorageLike

NAMED: dict[str, Callable[[], Storage]] = {
    "float32": float32,
    "bfloat16": bfloat16,
    "int8": int8,
    "int4": int4,
}


@value
class Choice:
    """The storage of each leaf.

    Attributes:
      rows: (path pattern, storage) pairs; the first pattern that matches a path decides.
      function: maps a leaf's path and global shape to its storage; replaces the rows.
    """

    rows: tuple[tuple[str, Storage], ...] = ()
    function: Callable[[str, tuple[int, ...]], str | Storage] | None = None

    @property
    def among(self) -> tuple[Storage, ...]:
        """The storages of all rows; empty if `function` decides."""
        return tuple(storage for _, storage in self.rows)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The path patterns of all rows."""
        return tuple(pattern for pattern, _ in self.rows)

    def of(self, path: str, shape: tuple[int, ...]) -> Storage:
        """The storage of the leaf with this path and global shape."""
        if self.function is not None:
            return named(self.function(path, shape))
        for pattern, storage in self.rows:
            if pattern == "*" or paths.matches(pattern, path):
                return storage
        known = ", ".join(repr(pattern) for pattern, _ in self.rows)
        raise ValueError(f"{path}: no pattern in `storage` matches this leaf, got {known}")


def choose(
    storage: StorageLike | Choice | None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> Choice:
    """The storage of each leaf, from the arguments of a recipe.

    Example:
      >>> table = choose({"*/embedding": "float32", "*": "int8"})
      >>> table.of("decoder/embedding", (50257, 768)).name
      'float32'
      >>> choose("int7")
      Traceback (most recent call last):
      ...
      ValueError: `storage` must be one of 'float32', 'bfloat16', 'int8', 'int4', a Storage, ...
    """
    if isinstance(storage, Choice):
        return storage
    if storage is None:
        return Choice((("*", of_dtypes(mu_dtype, nu_dtype)),))
    if mu_dtype is not None or nu_dtype is not None:
        raise ValueError("give either `storage` or `mu_dtype` / `nu_dtype`, not both")
    if isinstance(storage, Mapping):
        return Choice(tuple((pattern, named(s)) for pattern, s in storage.items()))
    if isinstance(storage, str) or not callable(storage):
        return Choice((("*", named(storage)),))
    return Choice(function=storage)


def named(storage: str | Storage) -> Storage:
    """The storage with this name; a `Storage` is returned as it is."""
    if isinstance(storage, str) and storage in NAMED:
        return NAMED[storage]()
    if isinstance(storage, str) or not hasattr(storage, "encode"):
        known = ", ".join(map(repr, NAMED))
        raise ValueError(
            f"`storage` must be one of {known}, a Storage, "
            f"a table of path patterns or a function, got {storage!r}"
        )
    return storage


def recognised(arrays: Arrays, kinds: Kinds, gradient: jnp.dtype) -> str:
    """The name of the storage in `NAMED` that made `arrays`; empty if none did."""
    for name, build in NAMED.items():
        storage = build()
        if tuple(arrays) == storage.fields(kinds) and not storage.complaint(
            arrays, kinds, gradient
        ):
            return name
    return ""


__all__ = [
    "NAMED",
    "Choice",
    "Compact",
    "Floats",
    "Storage",
    "StorageLike",
    "bfloat16",
    "choose",
    "float32",
    "int4",
    "int8",
    "named",
    "recognised",
]
