# SPDX-License-Identifier: Apache-2.0
"""How libraries lay out kernels, and rearrangements of arrays that can be undone.

A library's layout of a kernel is a word of its axes: `i` inputs, `o` outputs, `*` all spatial axes,
and `~` in front where the spatial axes are reversed. From two such words follows the way from one
library to the other. Moments lie as their parameter does, so they take the same way.

A rearrangement only moves elements. It is given as a function of arrays; applied to the elements'
positions it tells where each goes, which is the way back, and whether it loses or doubles any.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any  # NumPy's
Move = Callable[..., Array]

AXES: dict[str, dict[str, str]] = {
    "torch": {
        "linear": "oi",
        "conv": "oi*",
        "conv_transpose": "io*",
        "transpose_kernel": "io*",
    },
    "flax": {  # linen and nnx
        "linear": "io",
        "conv": "*io",
        "conv_transpose": "~*io",
        "transpose_kernel": "*oi",  # `ConvTranspose(transpose_kernel=True)`
    },
    "equinox": {"linear": "oi", "conv": "oi*", "conv_transpose": "~oi*"},
    "haiku": {"linear": "io", "conv": "*io", "conv_transpose": "~*oi"},
    "keras": {"linear": "io", "conv": "*io", "conv_transpose": "*oi"},
}


def rearranged(x: Array, kind: str, of: str, to: str) -> Array:
    """A kernel of one library, or a moment of it, in the layout of another: keys of `AXES`.

    Example:
      >>> rearranged(np.ones((8, 3, 5, 5)), "conv", "torch", "flax").shape
      (5, 5, 3, 8)
    """
    here, there = AXES[of][kind], AXES[to][kind]
    if x.ndim < 2:
        raise ValueError(f"a kernel has at least 2 axes, got shape {x.shape}")
    space = [f"s{i}" for i in range(x.ndim - 2)]
    x = np.transpose(x, [_axes(here, space).index(axis) for axis in _axes(there, space)])
    if here.startswith("~") == there.startswith("~"):
        return x
    return np.flip(x, tuple(i for i, axis in enumerate(_axes(there, space)) if axis in space))


def _axes(word: str, space: list[str]) -> list[str]:
    return [axis for c in word.removeprefix("~") for axis in (space if c == "*" else [c])]


def positions(move: Move, shapes: Sequence[tuple[int, ...]]) -> Array:
    """Where each element of `move`'s result comes from, counted through all of its arguments.

    Raises `ValueError` where it takes an element twice or makes one up.
    """
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    counted = [
        np.arange(start, end).reshape(shape)
        for start, end, shape in zip(starts, starts[1:], shapes, strict=False)
    ]
    found = np.asarray(move(*counted))
    flat = found.ravel()
    if not np.issubdtype(found.dtype, np.integer) or np.any((flat < 0) | (flat >= starts[-1])):
        raise ValueError("a rearrangement may only move elements, this one computes with them")
    if np.bincount(flat, minlength=1).max(initial=0) > 1:
        raise ValueError("a rearrangement may take each element once, this one takes some twice")
    return found


class Part(NamedTuple):
    """One of our leaves, as made from arrays of another library.

    Attributes:
      sources: the indices of these arrays in the list of all.
      move: makes the leaf of them.
      leaf: the leaf.
    """

    sources: tuple[int, ...]
    move: Move
    leaf: Array


def undone(
    parts: Sequence[Part], shapes: Sequence[tuple[int, ...]], names: Sequence[str] = ()
) -> list[Array]:
    """The arrays of another library, of these shapes and names, from our leaves: the way back.

    Raises `ValueError` where leaves do not fill an array, or two that differ fill one place.

    Example:
      >>> leaf = np.arange(6).reshape(3, 2)
      >>> undone([Part((0,), np.transpose, leaf)], [(2, 3)])[0].tolist()
      [[0, 2, 4], [1, 3, 5]]
    """
    dtypes: list[Any] = [None] * len(shapes)
    for part in parts:
        for i in part.sources:
            dtypes[i] = part.leaf.dtype
    made = [np.zeros(int(np.prod(s)), d or np.float32) for s, d in zip(shapes, dtypes, strict=True)]
    filled = [np.zeros(array.size, bool) for array in made]
    for part in parts:
        where = positions(part.move, [shapes[i] for i in part.sources]).ravel()
        values, start = np.asarray(part.leaf).ravel(), 0
        for i in part.sources:
            here = (where >= start) & (where < start + made[i].size)
            at = where[here] - start
            twice = filled[i][at]
            if not np.array_equal(made[i][at][twice], values[here][twice]):
                name = names[i] if names else f"array {i}"
                raise ValueError(f"{name} of shape {shapes[i]}: two leaves of it differ here")
            made[i][at] = values[here]
            filled[i][at] = True
            start += made[i].size
    for i, known in enumerate(filled):
        if missing := int((~known).sum()):
            name = names[i] if names else f"array {i}"
            raise ValueError(f"{name} of shape {shapes[i]}: {missing} elements have no leaf")
    return [array.reshape(shape) for array, shape in zip(made, shapes, strict=True)]
