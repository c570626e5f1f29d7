# SPDX-License-Identifier: Apache-2.0
"""Whether steps that are traced now may run in C++, and whether they may overwrite their operands.

Both are set around a trace, since an optimizer inside other people's chains cannot be told by an
argument. `adamx.kernels` looks them up; JAX compiles a function anew where they differ.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax


class Use(NamedTuple):
    """How steps are traced.

    Attributes:
      kernels: whether loops in C++ are used, if there are any.
      in_place: whether results are written in the place of their operands.
    """

    kernels: bool = True
    in_place: bool = True


@contextlib.contextmanager
def using(kernels: bool) -> Iterator[None]:
    """A context in which steps are traced with loops in C++, if there are any, or without.

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


def now() -> Use:
    """How steps are traced now."""
    return _USE.value


_USE = jax.make_user_context(Use())
