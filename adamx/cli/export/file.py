# SPDX-License-Identifier: Apache-2.0
"""A trained model and its training step in one file, which needs neither our code nor the model's.

The step is `jax.export`'s StableHLO for CPUs, GPUs and TPUs. The archive also holds the parameters,
the optimizer's state, and some batches for further training.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from adamx.cli.disk import writing
from adamx.cli.flags import UsageError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FORM = 1


class Exported(NamedTuple):
    """The contents of a file.

    Attributes:
      about: the title, the steps done and those at the export, the units of throughput.
      step: `(arrays, batch) -> (arrays, loss)`, lists of arrays.
      program: the step, serialized.
      arrays: the parameters and the state.
      batches: lists of arrays.
    """

    about: dict[str, Any]
    step: Callable[[list[Any], list[Any]], tuple[list[Any], Any]]
    program: bytes
    arrays: list[np.ndarray]
    batches: list[list[np.ndarray]]


def program(step: Callable[..., Any], arrays: list[Any], batch: list[Any]) -> bytes:
    """`step`, exported for all platforms and serialized."""
    made = jax.export.export(jax.jit(step), platforms=PLATFORMS)(arrays, batch)
    return bytes(made.serialize())


def write(path: Path, exported: Exported) -> None:
    """Writes the file."""
    kept = {"form": FORM, **exported.about}
    rows = {"array": exported.arrays}
    rows |= {f"batch-{i}": batch for i, batch in enumerate(exported.batches)}
    with writing(path), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("step", exported.program)
        for name, arrays in rows.items():
            for i, x in enumerate(arrays):
                x = np.asarray(x)
                kept[f"{name}/{i}"] = [x.dtype.name, x.shape]
                file.writestr(f"{name}/{i}", x.tobytes())
        file.writestr("about.json", json.dumps(kept, indent=1))


def read(path: Path) -> Exported:
    """Reads the file; raises `UsageError` if it is not an export."""
    try:
        with zipfile.ZipFile(path) as file:
            contents = {name: file.read(name) for name in file.namelist()}
        kept = json.loads(contents.pop("about.json"))
        serialized = contents.pop("step")
    except (OSError, KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a file of `train --export` ({error})") from error
    if kept.pop("form", None) != FORM:
        raise UsageError(f"{path}: written by another version of adamx")
    rows: dict[str, dict[int, np.ndarray]] = {}
    for name, data in contents.items():
        row, _, number = name.partition("/")
        dtype, shape = kept.pop(name)
        rows.setdefault(row, {})[int(number)] = np.frombuffer(data, jnp.dtype(dtype)).reshape(shape)
    lists = {row: [found[i] for i in sorted(found)] for row, found in rows.items()}
    arrays = lists.pop("array")
    batches = [lists[f"batch-{i}"] for i in range(len(lists))]
    step: Any = jax.export.deserialize(bytearray(serialized)).call
    return Exported(kept, step, serialized, arrays, batches)
