# SPDX-License-Identifier: Apache-2.0
"""torch's tensors as NumPy's arrays, and back, in every floating dtype that both have."""

from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = ("float16", "bfloat16", "float32", "float64")


def dtype_of(tensor: Any) -> str:
    """The name of a tensor's dtype, or of its type where it is none."""
    found = str(getattr(tensor, "dtype", type(tensor).__name__))
    return found.removeprefix("torch.")


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor, as integers."""
    return tuple(int(size) for size in getattr(tensor, "shape", ()))


def complaint(tensor: Any) -> str:
    """Why `tensor` can be no weight and no moment; empty if it can."""
    if wrong := missing(tensor):
        return wrong
    if dtype_of(tensor) not in DTYPES:
        return f"must be one of {', '.join(DTYPES)}, got {dtype_of(tensor)}"
    return ""


def missing(tensor: Any) -> str:
    """Why `tensor` is no dense tensor with values; empty if it is."""
    if not hasattr(tensor, "shape"):
        return f"must be a tensor, got {type(tensor).__name__}"
    if str(getattr(tensor, "layout", "torch.strided")) != "torch.strided":
        return f"must be dense, got layout {tensor.layout}"
    return "is on the meta device, which has no values" if getattr(tensor, "is_meta", 0) else ""


def to_numpy(tensor: Any) -> np.ndarray:
    """The values of a tensor, or of an array, on the host."""
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach().cpu()
    name = dtype_of(tensor)
    if name != "bfloat16" and not name.startswith("float8"):
        return tensor.numpy()
    import torch

    bits = torch.int16 if name == "bfloat16" else torch.uint8
    return tensor.contiguous().view(bits).numpy().view(jnp.dtype(getattr(jnp, name)))


def to_tensor(array: Any, like: Any) -> Any:
    """`array` as a tensor with the dtype and on the device of `like`, a tensor or an array."""
    import torch

    wide = np.float64 if np.asarray(array).dtype == np.float64 else np.float32
    tensor = torch.from_numpy(np.array(array, wide, order="C"))
    return tensor.to(getattr(torch, dtype_of(like))).to(getattr(like, "device", "cpu"))
