# SPDX-License-Identifier: Apache-2.0
"""How moments rest between steps. Each storage is one file and one row in `NAMED`."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from adamx.core import paths
from adamx.storage.compact import Compact, int4, int8
from adamx.storage.floats import Floats, bfloat16, float32, of_dtypes
from adamx.storage.storage import Arrays, Kinds, Storage, StorageLike

NAMED: dict[str, Callable[[], Storage]] = {
    "float32": float32,
    "bfloat16": bfloat16,
    "int8": int8,
    "int4": int4,
}


class Choice(NamedTuple):
    """Which storage a leaf has.

    Attributes:
      of: from a leaf's path and global shape to its storage.
      among: all that it may be, as far as that is known without a leaf.
    """

    of: Callable[[str, tuple[int, ...]], Storage]
    among: tuple[Storage, ...] = ()


def choose(
    storage: StorageLike | Choice | None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> Choice:
    """The storage of each leaf, from what a recipe was given.

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
        return _always(of_dtypes(mu_dtype, nu_dtype))
    if mu_dtype is not None or nu_dtype is not None:
        raise ValueError("give either `storage` or `mu_dtype` / `nu_dtype`, not both")
    if isinstance(storage, Mapping):
        return _looked_up({pattern: named(s) for pattern, s in storage.items()})
    if isinstance(storage, str) or not callable(storage):
        return _always(named(storage))
    return Choice(lambda path, shape: named(storage(path, shape)))


def _always(storage: Storage) -> Choice:
    return Choice(lambda path, shape: storage, (storage,))


def _looked_up(table: dict[str, Storage]) -> Choice:
    """The storage of the first pattern that a path matches."""

    def of(path: str, shape: tuple[int, ...]) -> Storage:
        for pattern, storage in table.items():
            if paths.matches(pattern, path):
                return storage
        known = ", ".join(map(repr, table))
        raise ValueError(f"{path}: `storage` has no pattern for this leaf, only {known}")

    return Choice(of, tuple(table.values()))


def named(storage: str | Storage) -> Storage:
    """The storage of that name, or the storage itself."""
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
    """The name of the storage that such arrays come from; empty where it is none of `NAMED`."""
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
