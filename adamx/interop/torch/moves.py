# SPDX-License-Identifier: Apache-2.0
"""From torch's arrays to a leaf of ours: transposed, reversed, cut in thirds, split into heads."""

from collections.abc import Sequence

import numpy as np

from adamx.interop.layouts import AXES, Array, Move, positions, rearranged
from adamx.interop.torch.conventions import CONVENTIONS

Shape = tuple[int, ...]
KINDS = ("same", *AXES["torch"])


def kind_of(path: str, shapes: Sequence[Shape], layout: str) -> str:
    """What a leaf is, by its name here and by torch's number of axes."""
    is_kernel = path.rpartition("/")[2] in CONVENTIONS[layout].kernels
    axes = len(shapes[0])
    return "same" if not is_kernel or axes < 2 else "linear" if axes == 2 else "conv"


def move_of(kind: str, layout: str, shape: Shape, third: int | None) -> Move:
    """The function from torch's array, or a third of it, to a leaf of `shape`, which may split an
    axis, as heads do, or have more axes of size 1."""

    def move(x: Array) -> Array:
        if third is not None:
            x = np.split(x, 3)[third]
        if kind != "same" and layout != "torch":
            x = rearranged(x, kind, "torch", layout)
        return x.reshape(shape) if _regroups(x.shape, shape) else x

    return move


def complaint(move: Move, kind: str, shapes: Sequence[Shape], shape: Shape) -> str:
    """Why `move` does not make a leaf of `shape`; empty if it does.

    Moves of this file are tried on empty arrays, which cost no memory; others on the positions of
    all elements, as they may do anything.
    """
    shown = " + ".join(map(str, shapes))
    try:
        if kind.partition(",")[0] in KINDS:
            made = move(*(np.broadcast_to(np.int8(0), s) for s in shapes)).shape
        else:
            made = positions(move, shapes).shape
    except (ValueError, TypeError, IndexError, KeyError) as error:
        return f"of shape {shown} in torch, {shape} here, {kind!r}: {error}"
    if made == shape:
        return ""
    return f"of shape {shown} in torch, which is {made} as {kind!r}; the leaf has {shape}"


def _regroups(a: Shape, b: Shape) -> bool:
    """Whether one shape is the other with an axis split, or with more axes of size 1."""
    fewer, more = sorted(([n for n in shape if n != 1] for shape in (a, b)), key=len)
    rest = iter(more)
    for size in fewer:
        whole = 1
        while whole < size:
            whole *= next(rest, size + 1)
        if whole != size:
            return False
    return next(rest, None) is None
