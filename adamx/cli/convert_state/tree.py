# SPDX-License-Identifier: Apache-2.0
"""The shapes of a run's parameters here: made up from the names there, or read from a file."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.cli.flags import UsageError
from adamx.core import paths
from adamx.interop.layouts import AXES, rearranged
from adamx.interop.torch import tensors
from adamx.interop.torch.conventions import CONVENTIONS
from adamx.interop.torch.order import parameters_of


def made_up(
    weights: Mapping[str, Any], layout: str, names: Mapping[str, Any], layouts: Mapping[str, str]
) -> dict[str, Any]:
    """Nested dictionaries with a leaf for each parameter of torch's.

    A leaf is where `names` puts it; else torch's name says, with the last word of the convention:
    `kernel` for weights with two axes or more and `scale` for others, in Flax. So a table is taken
    for a linear layer's kernel, unless `names` say better.
    """
    given = {name: path for path, name in names.items() if isinstance(name, str)}
    tree: dict[str, Any] = {}
    for name in parameters_of(weights):
        shape, path = tensors.shape_of(weights[name]), given.get(name)
        path = _path(name, len(shape), layout, given) if path is None else path
        kind = next((x for p, x in layouts.items() if paths.matches(p, path)), None)
        dtype = jnp.dtype(tensors.dtype_of(weights[name]))
        put(tree, path, _shape(shape, path, kind, layout), dtype)
    return tree


def put(tree: dict[str, Any], path: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Adds a leaf to nested dictionaries."""
    *words, last = path.split("/")
    for word in words:
        tree = tree.setdefault(word, {})
        if not isinstance(tree, dict):
            raise UsageError(f"{path}: {word} is a leaf already")
    tree[last] = jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype))


def retyped(shapes: Any, dtype: str | None) -> Any:
    """The same tree, with its floating leaves in another dtype."""
    if dtype is None:
        return shapes
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype)), shapes)


def _path(name: str, axes: int, layout: str, given: Mapping[str, str]) -> str:
    words = name.split(".")
    for end in range(len(words) - 1, 0, -1):
        if (module := given.get(".".join(words[:end]))) is not None:
            words = [*module.split("/"), *words[end:]]
            break
    convention = CONVENTIONS[layout]
    last = [ours for ours, theirs in convention.last.items() if theirs == words[-1]]
    kernels = [ours for ours in last if ours in convention.kernels]
    if kernels and axes > 1:
        last = kernels
    elif kernels:
        last = [ours for ours in last if ours == "scale"]
    return "/".join([*words[:-1], last[0] if last else words[-1]])


def _shape(shape: tuple[int, ...], path: str, kind: str | None, layout: str) -> tuple[int, ...]:
    is_kernel = path.rpartition("/")[2] in CONVENTIONS[layout].kernels and len(shape) > 1
    kind = kind or (("linear" if len(shape) == 2 else "conv") if is_kernel else "same")
    if kind not in AXES["torch"] or layout == "torch":
        return shape
    return rearranged(np.broadcast_to(np.int8(0), shape), kind, "torch", layout).shape
