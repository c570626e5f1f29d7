# SPDX-License-Identifier: Apache-2.0
"""Kernels of transposed convolutions, which do not lie in Keras as they do in Flax."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from adamx.core import paths
from adamx.interop.keras.held import Held
from adamx.interop.keras.pairing import Names
from adamx.interop.layouts import AXES, rearranged
from adamx.interop.names import Problems

Layouts = Mapping[str, str] | None

_TRANSPOSED = re.compile(r"conv\w*transpose")


def check_layouts(
    there: Held, order: Iterable[str], names: Names, layouts: Layouts, problems: Problems
) -> None:
    """Adds a problem for each kernel that is a transposed convolution's by its name in Keras, and
    of which `layouts` says nothing. A file has the names of classes, a live model those of layers.
    """
    for pattern, library in (layouts or {}).items():
        if library not in AXES:
            known = ", ".join(map(repr, AXES))
            problems.add(f"`layouts` has {library!r} for {pattern}, it must be one of {known}")
    order = list(order)
    if there.names is not None:
        found = dict(zip(order, there.names, strict=True))
    elif isinstance(names, Mapping):
        found = dict(names)
    else:
        held = [name for name in there.weights or () if _TRANSPOSED.search(str(name))]
        if held and not layouts:
            problems.add(f"{held[0]}: {_REMEDY}")
        return
    for leaf, name in found.items():
        is_kernel = _TRANSPOSED.search(name.lower()) and "bias" not in leaf.lower()
        if is_kernel and library_of(leaf, layouts) is None:
            problems.add(f"{leaf}: {_REMEDY}")


_REMEDY = (
    "a kernel of a transposed convolution does not lie in Keras as in Flax: say whose layout it "
    "has here, `layouts={'*/kernel': 'flax'}`, or 'keras' to leave it as it is"
)


def library_of(leaf: str, layouts: Layouts) -> str | None:
    """The library in whose layout a leaf is, where that is said."""
    return next((x for p, x in (layouts or {}).items() if paths.matches(p, leaf)), None)


def here(x: Any, leaf: str, layouts: Layouts) -> Any:
    """Keras' kernel, or a moment of it, as it lies here."""
    to = library_of(leaf, layouts)
    return x if to is None or x.ndim < 3 else rearranged(x, "conv_transpose", "keras", to)


def back(x: Any, leaf: str, layouts: Layouts) -> Any:
    """Our kernel, or a moment of it, as it lies in Keras."""
    of = library_of(leaf, layouts)
    return x if of is None or x.ndim < 3 else rearranged(x, "conv_transpose", of, "keras")
