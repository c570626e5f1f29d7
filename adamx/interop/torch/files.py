# SPDX-License-Identifier: Apache-2.0
"""Reads torch's files, and runs nothing that is in them.

A `.pt` file is an archive with a pickle in it, which is a program. Before `torch.load` reads it
with `weights_only=True`, this file looks through the pickle's instructions: any function but those
that put tensors together is refused, so that not even memory is asked for.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adamx.interop import safetensors
from adamx.interop.torch import tensors

# What `torch.save` writes for tensors in dictionaries and lists.
_KNOWN = re.compile(
    r"collections OrderedDict|torch Size|torch device|torch \w+Storage"
    r"|torch\.storage (Untyped|Typed)Storage|torch (b?float\d+|u?int\d+|bool)"
    r"|torch\._utils _rebuild_(tensor_v2|tensor_v3|parameter)"
)


def read(path: str | Path) -> Any:
    """What is in a `.pt` or `.pth` file (torch) or a `.safetensors` file (NumPy arrays by name).

    Nothing is executed: neither code in the file nor anything that only `pickle` could read. The
    file is a zip archive as torch writes it since 1.6; older ones have to be saved again.

    Raises:
      ValueError: if it is none of these, not whole, or has more in it than tensors, numbers and
        strings; one sentence with the path.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe may have no end
        raise ValueError(f"{path} is not a regular file")
    with open(path, "rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        return _of_torch(path)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return safetensors.read(path)
    if start[:1] == b"\x80":
        raise ValueError(
            f"{path} is a plain pickle, which may run code: load it where you trust it, and save "
            "it again with torch 1.6 or newer"
        )
    raise ValueError(f"{path} is no torch file (or not a whole one) and no safetensors file")


def _of_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"{path} is read with torch: pip install torch") from error
    if complaint := _complaint(path):
        raise ValueError(f"{path} {complaint}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read: {why[:200]}") from error
    for name, tensor in _tensors(found):
        claimed = tensor.numel() * tensor.element_size()
        if claimed > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path}: {name} claims {tensor.numel():,} elements of {tensors.dtype_of(tensor)}, "
                f"the file has {tensor.untyped_storage().nbytes():,} bytes of it"
            )
    return found


def _complaint(path: Path) -> str:
    """What is wrong with a zip archive of torch's, as the end of a sentence; empty if nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            programs = [x for x in entries if x.filename.endswith("data.pkl")]
            if len(programs) != 1:
                return "is an archive, but none of torch.save: it has not one data.pkl"
            if any(x.compress_type != zipfile.ZIP_STORED for x in entries):
                return "is compressed, as torch.save never does"
            if sum(x.file_size for x in entries) > path.stat().st_size:
                return "claims more bytes in its entries than it has"
            return _of_program(archive.read(programs[0]))
    except Exception as error:  # whatever `zipfile` makes of damaged bytes
        return f"is damaged: {error}"


def _of_program(program: bytes) -> str:
    """What a pickle does besides making tensors."""
    try:
        for instruction, argument, _ in pickletools.genops(program):
            name = instruction.name
            if name == "GLOBAL" and not _KNOWN.fullmatch(str(argument)):
                return (
                    f"holds more than tensors: it calls {str(argument).replace(' ', '.')[:100]}; "
                    'where you trust it, load it in torch and save {"model": …, "optimizer": …}, '
                    "the state dicts alone"
                )
            elif name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
                return f"holds more than tensors: its pickle has the instruction {name}"
    except Exception as error:
        return f"is damaged: its pickle ends in the middle ({str(error)[:100]})"
    return ""


def _tensors(
    x: Any, name: str = "", depth: int = 0, seen: set[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """All tensors, with names; what lies in several places once, as it may lie in 2^60."""
    seen = set() if seen is None else seen
    if id(x) in seen:
        return
    if hasattr(x, "untyped_storage"):
        seen.add(id(x))
        yield name or "the tensor", x
    elif depth > 100:
        raise ValueError(f"{name[:40]} …: nested more than 100 deep")
    elif isinstance(x, Mapping | list | tuple):
        seen.add(id(x))
        for key, value in x.items() if isinstance(x, Mapping) else enumerate(x):
            yield from _tensors(value, f"{name}.{key}".lstrip("."), depth + 1, seen)
