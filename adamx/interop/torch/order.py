# SPDX-License-Identifier: Apache-2.0
"""The parameters among the entries of a model's state dict, in the model's order.

A state dict has buffers too, and a tied weight under each of its names; `named_parameters` has
neither. torch marks no entry as a buffer, so the usual ones are known by their names, and tied
weights by their memory.
"""

from collections.abc import Mapping
from typing import Any

from adamx.interop.torch import tensors

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def parameters_of(weights: Mapping[str, Any]) -> list[str]:
    """The names of the parameters, each weight once."""
    seen, found = set(), []
    for name, tensor in weights.items():
        place = memory_of(tensor)
        known = (*tensors.DTYPES, "complex64", "complex128")
        is_buffer = name.rpartition(".")[2] in BUFFERS or tensors.dtype_of(tensor) not in known
        if is_buffer or place in seen:
            continue
        found.append(name)
        if place is not None:
            seen.add(place)
    return found


def is_the_models(weights: Mapping[str, Any]) -> bool:
    """Whether entries are in the model's order, as far as that can be seen.

    `model.state_dict()` has `_metadata`, in memory and in files. Arrays of NumPy come from files of
    safetensors, which sort their entries by dtype and name. Other weights are in doubt where they
    lie so, or where a bias comes before its weight, as in shards of sorted ones.
    """
    names = parameters_of(weights)
    if len(names) < 2 or hasattr(weights, "_metadata"):
        return True
    if not all(hasattr(weights[name], "data_ptr") for name in names):
        return False
    at = {name: i for i, name in enumerate(weights)}
    heads = [name.removesuffix("bias") for name in names if name.endswith("bias")]
    reversed_ = any(at[f"{x}bias"] < at.get(f"{x}weight", -1) for x in heads)
    by_dtype: dict[str, list[str]] = {}
    for name in names:
        by_dtype.setdefault(tensors.dtype_of(weights[name]), []).append(name)
    return not reversed_ and any(x != sorted(x) for x in by_dtype.values())


def memory_of(tensor: Any) -> tuple[int, tuple[int, ...]] | None:
    """Where a tensor's values are; None if there are none."""
    pointer = getattr(tensor, "data_ptr", None)
    shape = tensors.shape_of(tensor)
    if pointer is None or 0 in shape:
        return None
    return int(pointer()), shape
