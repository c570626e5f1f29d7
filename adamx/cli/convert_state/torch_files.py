# SPDX-License-Identifier: Apache-2.0
"""The state dicts in a torch checkpoint, wherever trainers put them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adamx.cli import disk
from adamx.cli.flags import UsageError
from adamx.interop import torch as bridge
from adamx.interop.replaced import replaced

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
OPTIMIZER = "optimizer.pt"


class Found(NamedTuple):
    """A checkpoint.

    Attributes:
      weights: the model's state dict.
      optimizer: the optimizer's state dict.
      content: everything in the file.
      keys: where the two state dicts are in it.
    """

    weights: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    content: dict[str, Any]
    keys: tuple[str, str]


def holds(path: Path) -> bool:
    """Whether a path is a file of torch's, or a folder of Hugging Face's Trainer."""
    return path.suffix in SUFFIXES or (path.is_dir() and (path / OPTIMIZER).is_file())


def read(path: Path) -> Found:
    """The state dicts in a file or folder."""
    if not path.exists():
        raise UsageError(f"{path}: there is no such file")
    if path.is_dir():
        weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
        if weights is None:
            raise UsageError(f"{path} has {OPTIMIZER}, but none of {', '.join(WEIGHTS)}")
        content = {"model": _weights(weights), "optimizer": _read(path / OPTIMIZER)}
    else:
        content = _read(path)
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds a {type(content).__name__}, not state dicts")
    optimizer = [k for k, x in content.items() if _is_optimizer(x)]
    weights = [k for k, x in content.items() if k not in optimizer and _is_weights(x)]
    if len(optimizer) != 1 or len(weights) != 1:
        raise UsageError(
            f"{path} must hold the state dicts of one model and one optimizer, as "
            f'{{"model": …, "optimizer": …}}; it has {", ".join(map(str, content))[:200]}'
        )
    keys = weights[0], optimizer[0]
    return Found(content[keys[0]], content[keys[1]], dict(content), keys)


def write(path: Path, found: Found) -> None:
    """Writes a checkpoint as one file."""
    import torch

    content = found.content | dict(zip(found.keys, (found.weights, found.optimizer), strict=True))
    with disk.writing(path), replaced(path) as new, new.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own, while it handles that of a full disk
            system = error.__context__
            raise (system if isinstance(system, OSError) else error) from error


def _read(path: Path) -> Any:
    try:
        return bridge.read(path)
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {disk.why(error)}") from error


def _weights(path: Path) -> Any:
    """The weights in a file, or in the files that an index lists."""
    if path.suffix != ".json":
        return _read(path)
    try:
        listed = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path.parent / Path(name).name for name in listed]  # of this folder alone
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not an index of safetensors files ({error})") from error
    return {name: x for file in files for name, x in _read(file).items()}


def _is_optimizer(x: Any) -> bool:
    return isinstance(x, Mapping) and {"state", "param_groups"} <= x.keys()


def _is_weights(x: Any) -> bool:
    return isinstance(x, Mapping) and bool(x) and all(hasattr(v, "shape") for v in x.values())
