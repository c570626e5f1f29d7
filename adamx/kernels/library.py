# SPDX-License-Identifier: Apache-2.0
"""The compiled library: found, loaded and made known to XLA once, at its first use."""

import ctypes
import functools
import os
import pathlib
from typing import NamedTuple

import jax

from adamx.core import kernel_use

NAME = "_native.so"
DIRECTION, STEP = "adamx_direction", "adamx_step"


class Availability(NamedTuple):
    """Whether there are loops in C++; true or false as a whole.

    Attributes:
      found: whether there are.
      why: the path of the library, or the reason why there is none.
    """

    found: bool
    why: str

    def __bool__(self) -> bool:
        return self.found

    def __str__(self) -> str:
        return self.why


def available() -> Availability:
    """Whether steps on CPUs run in C++, and if not, why not.

    Example:
      >>> found = available()
      >>> print("loops in C++" if found else f"XLA alone: {found}")  # doctest: +SKIP
      XLA alone: ADAMX_KERNELS=0 turns them off
    """
    if os.environ.get("ADAMX_KERNELS", "1") == "0":
        return Availability(False, "ADAMX_KERNELS=0 turns them off")
    return _loaded()


def used() -> bool:
    """Whether what is traced now may use the loops: on a CPU, where nobody turned them off."""
    return kernel_use.now().kernels and bool(available()) and jax.default_backend() == "cpu"


@functools.cache
def _loaded() -> Availability:
    path = pathlib.Path(__file__).with_name(NAME)
    if not path.exists():
        reason = pathlib.Path(__file__).with_name("_native.txt")
        why = reason.read_text().strip() if reason.exists() else "it was not installed by pip"
        return Availability(False, f"{path.name} was not built: {why}")
    try:
        library = ctypes.CDLL(str(path))
        for name, symbol in ((DIRECTION, "AdamxDirection"), (STEP, "AdamxStep")):
            handler = jax.ffi.pycapsule(getattr(library, symbol))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except Exception as e:
        return Availability(False, f"{path.name} cannot be used: {e}")
    return Availability(True, str(path))
