# SPDX-License-Identifier: Apache-2.0
"""Reads safetensors files: a length, that many bytes of JSON, and the arrays as they are.

Nothing is allocated before the file is known to be as long as it claims. Each array is then copied
out of the mapped file. The order of the entries is the file's, which writers sort by dtype and
name.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}

# The format's own limit on the header, in bytes.
LONGEST = 100_000_000

# Longer names are cut in messages. NumPy's arrays have at most 64 axes.
LONGEST_NAME, AXES = 200, 64


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
      ValueError: where it is none, or not whole; one sentence with the path.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, LONGEST):
            raise ValueError(
                f"{path} is no whole safetensors file: its header claims {length:,} bytes, the "
                f"file has {size:,}"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is no safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else _EMPTY
    if complaint := _complaint(header, len(data)):
        raise ValueError(f"{path}: {complaint}")
    return {name: _array(data, entry) for name, entry in header.items()}


_EMPTY = np.zeros(0, np.uint8)


def _array(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    dtype = jnp.dtype(DTYPES[entry["dtype"]])
    return np.frombuffer(data[first:last].tobytes(), dtype).reshape(entry["shape"])


def _complaint(header: dict[str, Any], size: int) -> str:
    """What is wrong with a header, given the bytes behind it; empty if nothing is."""
    taken = []
    for key, entry in header.items():
        name = key if len(key) <= LONGEST_NAME else f"{key[:40]} … ({len(key):,} letters)"
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            return f"{name!r} lacks a dtype, a shape or its place in the file"
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
            got = str(entry["dtype"])[:40]
            return f"{name} has dtype {got!r}, which is none of {', '.join(DTYPES)}"
        if not (_whole(entry["shape"]) and _whole(entry["data_offsets"], 2)):
            at = str(entry["data_offsets"])[:80]
            return f"{name} has shape {str(entry['shape'])[:80]} at {at}: not whole numbers"
        if len(entry["shape"]) > AXES or max(entry["shape"], default=0) >= 2**63:
            return (
                f"{name} has {len(entry['shape'])} axes, or one that is too long: at most {AXES} "
                "axes of less than 2^63 can be read"
            )
        first, last = entry["data_offsets"]
        if max(first, last) >= 2**63:
            return f"{name} ends beyond 2^63 bytes, the file has {size:,} of data"
        wanted = math.prod(entry["shape"]) * jnp.dtype(DTYPES[entry["dtype"]]).itemsize
        if last - first != wanted or last > size:
            kind = f"{entry['dtype']} of {str(entry['shape'])[:80]}"
            return (
                f"{name} claims {_bytes(wanted)} ({kind}) at "
                f"{first:,} to {last:,}, the file has {size:,} of data"
            )
        taken.append((first, last, name))
    for (_, end, a), (start, _, b) in zip(sorted(taken), sorted(taken)[1:], strict=False):
        if start < end:
            return f"{a} and {b} lie in the same place"
    return ""


def _bytes(n: int) -> str:
    return f"{n:,} bytes" if n < 2**63 else "2^63 bytes or more"


def _whole(x: Any, length: int | None = None) -> bool:
    is_list = isinstance(x, list) and all(type(n) is int and n >= 0 for n in x)
    return is_list and length in (None, len(x))
