# SPDX-License-Identifier: Apache-2.0
"""How moments rest between steps. Each storage is one file and one row in `NAMED`."""

from collections.abc import Callable

from jax.typing import DTypeLike

from adamx.storage.floats import Floats, bfloat16, float32, of_dtypes
from adamx.storage.storage import Storage, StorageLike

NAMED: dict[str, Callable[[], Storage]] = {"float32": float32, "bfloat16": bfloat16}


def choose(
    storage: StorageLike | None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> Callable[[str, tuple[int, ...]], Storage]:
    """A function from a leaf's path and shape to its storage, from what a recipe was given.

    Example:
      >>> choose("int7")
      Traceback (most recent call last):
      ...
      ValueError: `storage` must be one of 'float32', 'bfloat16', a Storage or a function, ...
    """
    if storage is None:
        plain = of_dtypes(mu_dtype, nu_dtype)
        return lambda path, shape: plain
    if mu_dtype is not None or nu_dtype is not None:
        raise ValueError("give either `storage` or `mu_dtype` / `nu_dtype`, not both")
    if isinstance(storage, str) or not callable(storage):
        chosen = named(storage)
        return lambda path, shape: chosen
    return lambda path, shape: named(storage(path, shape))


def named(storage: str | Storage) -> Storage:
    """The storage of that name, or the storage itself."""
    if isinstance(storage, str) and storage in NAMED:
        return NAMED[storage]()
    if isinstance(storage, str) or not hasattr(storage, "encode"):
        known = ", ".join(map(repr, NAMED))
        raise ValueError(
            f"`storage` must be one of {known}, a Storage or a function, got {storage!r}"
        )
    return storage


__all__ = ["NAMED", "Floats", "Storage", "StorageLike", "bfloat16", "choose", "float32", "named"]
