# SPDX-License-Identifier: Apache-2.0
"""Reads MNIST's IDX files: a header of two zeros, a type and the sizes, then the array."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from adamx.cli.flags import UsageError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_mnist(folder: str) -> tuple[Any, Any]:
    """The training and the test set, each as images in [0, 1] and labels; files may be gzipped."""
    found = []
    for names in FILES.values():
        images, labels = (read_idx(_path(Path(folder), name)) for name in names)
        if len(images) != len(labels) or images.ndim != 3:
            raise UsageError(
                f"{folder}: {names[0]} has shape {images.shape}, {names[1]} {labels.shape}"
            )
        found.append((images.astype(np.float32) / 255, labels.astype(np.int32)))
    return found[0], found[1]


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise UsageError(f"{path}: not an IDX file")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise UsageError(f"{path}: not an IDX file")
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4"))
    dtype = np.dtype(TYPES[data[2]])
    if len(data) != start + dtype.itemsize * int(np.prod(shape)):
        raise UsageError(f"{path}: {len(data):,} bytes do not hold an array of shape {shape}")
    return np.frombuffer(data[start:], dtype).reshape(shape)


def _path(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")):
        if path.is_file():
            return path
    raise UsageError(f"{folder}: there is no {name} in it, nor {name}.gz")
