# SPDX-License-Identifier: Apache-2.0
"""For what steps are traced now, whether by kernels, and whether they may overwrite their operands.

All are set around a trace, since an optimizer inside other people's chains cannot be told by an
argument. `adamx.kernels` and `one_map.py` look them up; JAX compiles a function anew where they
differ.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import jax


class Use(NamedTuple):
    """How steps are traced.

    Attributes:
      kernels: whether a leaf's step may be one operation: a loop in C++ on CPUs, if there is any,
        an HLO map on GPUs.
      in_place: whether results are written in the place of their operands.
      platform: for what they are compiled; None for the devices that JAX has here.
    """

    kernels: bool = True
    in_place: bool = True
    platform: str | None = None


@contextlib.contextmanager
def using(kernels: bool) -> Iterator[None]:
    """A context in which steps are traced with loops in C++ (on GPUs: maps), if any, or without.

    Example:
      >>> import adamx
      >>> with adamx.kernels.using(False):
      ...     pass  # what is traced here is stepped by XLA
    """
    with _USE(_USE.value._replace(kernels=kernels)):
        yield


@contextlib.contextmanager
def keeping_operands() -> Iterator[None]:
    """A context for steps whose operands nobody gives away: results get memory of their own.

    Otherwise they are written in the place of their operands, which costs nothing where those are
    donated or carried by a loop. Where they are needed afterwards, XLA would copy them first.
    """
    with _USE(_USE.value._replace(in_place=False)):
        yield


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """A context for steps that are compiled for devices that are not here."""
    with _USE(_USE.value._replace(platform=platform)):
        yield


def platform() -> str:
    """The platform that steps are compiled for now, in JAX's words: `cpu`, `gpu`, `tpu`."""
    return now().platform or jax.default_backend()


def turned_off() -> bool:
    """Whether the environment turns all kernels off."""
    return os.environ.get("ADAMX_KERNELS", "1") == "0"


def now() -> Use:
    """How steps are traced now."""
    return _USE.value


_USE = jax.make_user_context(Use())
