# SPDX-License-Identifier: Apache-2.0
"""The compiled library: found, loaded and made known to XLA once, at its first use."""

import ctypes
import functools
import pathlib
import re
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
    if kernel_use.turned_off():
        return Availability(False, "ADAMX_KERNELS=0 turns them off")
    return _loaded()


def used() -> bool:
    """Whether what is traced now may use the loops: on a CPU, where nobody turned them off.

    Not where `shard_map` maps over some axes of a mesh and `jit` spreads arrays over others, nor
    with the partitioner before Shardy: neither lets a custom call say how it is spread.
    """
    mesh = jax.sharding.get_abstract_mesh()
    partly = mesh.manual_axes and set(mesh.manual_axes) != set(mesh.axis_names)
    shardy = getattr(jax.config, "jax_use_shardy_partitioner", True)
    wanted = kernel_use.now().kernels and shardy and not partly
    return bool(wanted and available()) and kernel_use.platform() == "cpu"


@functools.cache
def _loaded() -> Availability:
    path = pathlib.Path(__file__).with_name(NAME)
    if not path.exists():
        reason = pathlib.Path(__file__).with_name("_native.txt")
        why = reason.read_text().strip() if reason.exists() else "it was not installed by pip"
        return Availability(False, f"{path.name} was not built: {why}")
    try:
        library = ctypes.CDLL(str(path))
        built, has = library.AdamxFfiVersion(), _ffi_version()
        if built > has:
            return Availability(False, f"{path.name} {_TOO_NEW.format(built, has)}")
        for name, symbol in ((DIRECTION, "AdamxDirection"), (STEP, "AdamxStep")):
            handler = jax.ffi.pycapsule(getattr(library, symbol))
            jax.ffi.register_ffi_target(name, handler, platform="cpu")
    except Exception as e:
        return Availability(False, f"{path.name} cannot be used: {e}")
    return Availability(True, str(path))


_TOO_NEW = (
    "was built with the headers of a newer jaxlib than the one that is installed (custom calls "
    "{0} for {1}): update jaxlib, or install adamx anew with `pip install --no-build-isolation`"
)


def _ffi_version() -> int:
    """The minor version of custom calls that the installed jaxlib understands, and all below."""
    header = pathlib.Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text()
    found = re.search(r"#define XLA_FFI_API_MINOR (\d+)", header)
    return int(found[1]) if found else 0
