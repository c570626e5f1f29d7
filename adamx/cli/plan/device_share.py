# SPDX-License-Identifier: Apache-2.0
"""The share of an array that one device of a mesh holds, by axes and stage of ZeRO.

The axis `data` copies every array unless ZeRO splits it; every other axis splits every array. An
axis splits the largest dimension that it divides, and copies the array if it divides none.
"""

import argparse
import math
from collections.abc import Mapping

from adamx.footprint import Part, Shard

# The first stage of ZeRO (arXiv 1910.02054) that splits a part over `data`; 3 is also FSDP.
_STAGES: dict[Part, int] = {"moments": 1, "landing": 1, "gradients": 2, "parameters": 3}


def shard(axes: Mapping[str, int], zero: int) -> Shard:
    """The function from an array to the shape of its shard on this mesh, for `adamx.nbytes`."""

    def held(part: Part, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        over = spec(part, shape, axes, zero)
        return tuple(
            size // math.prod(axes[name] for name in names)
            for size, names in zip(shape, over, strict=True)
        )

    return held


def spec(
    part: Part, shape: tuple[int, ...], axes: Mapping[str, int], zero: int
) -> tuple[tuple[str, ...], ...]:
    """The axes that split each dimension, in the form of a `PartitionSpec`.

    `data` comes last, so that moments are split within the parameter's own shards.
    """
    over: list[tuple[str, ...]] = [()] * len(shape)
    left = list(shape)
    names = [name for name in axes if name != "data"]
    if "data" in axes and zero >= _STAGES[part]:
        names.append("data")
    for name in names:
        fits = [i for i, size in enumerate(left) if size % axes[name] == 0]
        if fits:
            most = max(fits, key=lambda i: left[i])
            left[most] //= axes[name]
            over[most] += (name,)
    return tuple(over)


def mesh(text: str) -> dict[str, int]:
    """The type of a flag that takes the axes of a mesh: `data=8,model=4`."""
    axes: dict[str, int] = {}
    for axis in text.split(","):
        name, _, size = axis.partition("=")
        if not name.isidentifier() or not size.isdecimal() or int(size) < 1 or name in axes:
            raise argparse.ArgumentTypeError(
                f"must be distinct axes with their sizes, such as data=8,model=4, got {text!r}"
            )
        axes[name] = int(size)
    return axes
