# SPDX-License-Identifier: Apache-2.0
"""Reads the shapes for a plan from a model's name, a file of shapes or a safetensors header.

Weights are never read; each source becomes a tree of `jax.ShapeDtypeStruct`s.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from adamx.cli.flags import UsageError
from adamx.cli.plan.models import MODELS
from adamx.interop import safetensors

# The dtype of leaves without one: what most models are trained in.
DTYPE = "bfloat16"

# JAX walks trees by recursion; no model has as many modules inside one another.
_DEEPEST = 100

_OF_A_LEAF = {"shape", "dtype", "data_offsets"}

# Those of weights that train, and those that a file may list beside them.
_SAFETENSORS = safetensors.DTYPES | {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
}


def read(source: str) -> Any:
    """The leaves of the model or file named `source`."""
    if source in MODELS:
        return {name: _leaf(shape, DTYPE, name) for name, shape in MODELS[source]().items()}
    if not os.path.exists(source):
        raise UsageError(f"no file and no model is called {source!r}; models: {', '.join(MODELS)}")
    content = _content(Path(source))
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):  # an index
        files = sorted(set(map(str, content["weight_map"].values())))
        return [_tree(_content(Path(source).parent / file), "") for file in files]
    return _tree(content, "")


def _content(path: Path) -> Any:
    """The JSON in a file: the whole file, or the header of a safetensors file."""
    try:
        # A pipe may have no end, or no beginning.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path} is not a regular file")
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            is_header = start[8:] == b"{" and length + 8 <= os.fstat(file.fileno()).st_size
            begin, more = (start[8:], length - 1) if is_header else (start, safetensors.LONGEST)
            text = begin + file.read(more)
        return json.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"{path} is neither JSON nor a safetensors file") from error


def _tree(content: Any, path: str, depth: int = 0) -> Any:
    """The same containers with a `jax.ShapeDtypeStruct` in place of each shape."""

    def inside(name: Any) -> str:
        return f"{path}/{name}" if path else str(name)

    if depth > _DEEPEST:
        raise UsageError(f"{path[:40]}…: nested more than {_DEEPEST} deep")
    if isinstance(content, dict) and isinstance(content.get("shape"), list):
        if others := content.keys() - _OF_A_LEAF:
            raise UsageError(
                f"{path or 'the file'}: has a shape, which makes it one leaf, and also "
                f"{sorted(others)[0]!r}"
            )
        return _leaf(content["shape"], content.get("dtype", DTYPE), path)
    if isinstance(content, dict):
        parts = {name: part for name, part in content.items() if name != "__metadata__"}
        return {name: _tree(part, inside(name), depth + 1) for name, part in parts.items()}
    if isinstance(content, list) and any(isinstance(part, dict | list) for part in content):
        return [_tree(part, inside(i), depth + 1) for i, part in enumerate(content)]
    return _leaf(content, DTYPE, path)


def _leaf(shape: Any, dtype: Any, path: str) -> jax.ShapeDtypeStruct:
    where = path or "the file"
    if not isinstance(shape, list | tuple):
        raise UsageError(f"{where}: expected a shape such as [768, 3072], got {json.dumps(shape)}")
    if any(type(size) is not int or size < 0 for size in shape):
        raise UsageError(f"{where}: a shape holds whole numbers of at least 0, got {[*shape]}")
    try:
        return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(_SAFETENSORS.get(dtype, dtype)))
    except TypeError as error:
        raise UsageError(f"{where}: no dtype is called {dtype!r}") from error
