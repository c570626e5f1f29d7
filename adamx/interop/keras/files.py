# SPDX-License-Identifier: Apache-2.0
"""Keras' `.weights.h5` and `.keras` files: their arrays, and nothing that would run or mislead.

Links to other places and other files are refused, and so are an array that is larger than what the
file holds of it, and a group or an array in two places: Keras writes neither, and a few of them
would stand for more arrays than fit into memory. A `.keras` file is an archive with a
`model.weights.h5` and a `config.json`.

The variables of an optimizer in a `LossScaleOptimizer` are in a file twice: in their own place, and
as the last ones of the one around it.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from adamx.interop.replaced import replaced

_INSIDE = "model.weights.h5"
_OUTER, _INNER = "optimizer/vars/", "optimizer/inner_optimizer/vars/"
_LARGEST_CONFIG = 2**26  # bytes; that of a model of a thousand layers has a hundredth of it


class File(NamedTuple):
    """What a file holds.

    Attributes:
      optimizer: the optimizer's variables, in Keras' order; of the one in a `LossScaleOptimizer`.
      weights: the arrays of the model, by their path, such as `layers/dense/vars/0`.
      config: the configuration of that optimizer, which only a `.keras` file has.
      places: all paths of the optimizer's variables, to the number of the variable.
    """

    optimizer: list[np.ndarray]
    weights: dict[str, np.ndarray]
    config: Mapping[str, Any] | None
    places: dict[str, int]


def read(path: str | Path) -> File:
    """The arrays of a `.weights.h5` or `.keras` file; needs h5py.

    Args:
      path: the file. A damaged or misleading one is a `ValueError`.
    """
    path, config = Path(path), None
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                return _arrays(stream, path, config)
        with zipfile.ZipFile(path) as archive:
            config = _config(archive, path)
            if archive.getinfo(_INSIDE).compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{path}: {_INSIDE} is compressed, which Keras never does")
            with archive.open(_INSIDE) as stream:
                return _arrays(stream, path, config)
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path} is damaged, or no file of Keras 3: {error}") from error


def write(
    path: str | Path,
    source: str | Path,
    optimizer: list[np.ndarray],
    weights: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """A copy of the file `source` with other values, as those of a `File`."""
    path, source = Path(path), Path(source)
    before = read(source)
    if len(optimizer) != len(before.optimizer):
        raise ValueError(
            f"{source} holds {len(before.optimizer)} variables of an optimizer, not "
            f"{len(optimizer)}"
        )
    new = {**{place: optimizer[i] for place, i in before.places.items()}, **weights}
    held = {place: before.optimizer[i] for place, i in before.places.items()} | before.weights
    for name, x in new.items():
        if name not in held or held[name].shape != np.shape(x):
            raise ValueError(f"{source} holds no {name} of shape {np.shape(x)}")
    with replaced(path) as copy:
        _write(copy, source, new)


def _write(path: Path, source: Path, new: Mapping[str, Any]) -> None:
    if not zipfile.is_zipfile(source):
        shutil.copyfile(source, path)
        with _h5py().File(path, "r+") as file:
            _put(file, new)
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as copy:
        for name in old.namelist():
            content = old.read(name)
            if name == _INSIDE:
                inside = io.BytesIO(content)
                with _h5py().File(inside, "r+") as file:
                    _put(file, new)
                content = inside.getvalue()
            copy.writestr(name, content)


def _put(file: Any, new: Mapping[str, Any]) -> None:
    for name, x in new.items():
        held = file[name]
        held[...] = np.asarray(x).astype(held.dtype)


def _arrays(stream: Any, path: Path, config: Mapping[str, Any] | None) -> File:
    with _h5py().File(stream, "r") as file:
        found, room = {}, file.id.get_filesize()
        for name, held in _walk(file, "", path, set()):
            room -= held.nbytes
            if room < 0:
                raise ValueError(f"{path}: its arrays together are larger than the file")
            found[name] = _number(np.asarray(held[()]))
    outer = _numbered(found, _OUTER, path)
    inner = _numbered(found, _INNER, path)
    variables, around = inner or outer, len(outer) - len(inner or outer)
    if around < 0:
        raise ValueError(f"{path}: the optimizer inside has more variables than the one around it")
    places = {f"{_OUTER}{around + i}": i for i in range(len(variables))}
    places |= {f"{_INNER}{i}": i for i in range(len(inner))}
    weights = {k: x for k, x in found.items() if not k.startswith((_OUTER, _INNER))}
    return File(variables, weights, config, places)


def _numbered(found: Mapping[str, np.ndarray], home: str, path: Path) -> list[np.ndarray]:
    """The variables in a group of the file, in the order of their numbers."""
    words = [k.removeprefix(home) for k in found if k.startswith(home)]
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise ValueError(f"{path}: {home}{word} is no numbered variable")
    numbers = sorted(map(int, words))
    if numbers != list(range(len(numbers))):
        raise ValueError(f"{path}: the optimizer's variables are numbered {numbers}")
    try:
        return [found[f"{home}{i}"] for i in numbers]
    except KeyError as error:  # such as 00
        raise ValueError(f"{path}: the optimizer's variables are {', '.join(words)}") from error


def _walk(group: Any, prefix: str, path: Path, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """All arrays below a group, by their path. Groups and arrays in `seen` were met before."""
    h5py = _h5py()
    for name in group:
        where = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: {where} is a link to another place, which is not followed")
        item = group[name]
        if item.id in seen or item == item.file["/"]:
            raise ValueError(f"{path}: {where} is in the file under another name too")
        seen.add(item.id)
        if isinstance(item, h5py.Group):
            yield from _walk(item, f"{where}/", path, seen)
            continue
        if item.external or item.is_virtual or item.dtype.kind not in "fiubc?V":
            raise ValueError(f"{path}: {where} is no plain array of numbers")
        if item.nbytes > item.id.get_storage_size():
            raise ValueError(
                f"{path}: {where} says that it has {item.nbytes:,} bytes, the file holds "
                f"{item.id.get_storage_size():,}"
            )
        yield where, item


def _number(x: np.ndarray) -> np.ndarray:
    """bfloat16 is saved as two bytes without a meaning."""
    if x.dtype.kind != "V":
        return x
    import jax.numpy as jnp

    return x.view(jnp.bfloat16) if x.dtype.itemsize == 2 else x


def _config(archive: zipfile.ZipFile, path: Path) -> Mapping[str, Any] | None:
    """The optimizer's configuration; None where the file has none."""
    if "config.json" not in archive.namelist():
        return None
    size = archive.getinfo("config.json").file_size
    if size > _LARGEST_CONFIG:
        raise ValueError(f"{path}: its config.json has {size:,} bytes, at most {_LARGEST_CONFIG:,}")
    try:
        held = json.loads(archive.read("config.json"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its config.json is damaged: {error}") from error
    compiled = held.get("compile_config") if isinstance(held, dict) else None
    config = compiled.get("optimizer") if isinstance(compiled, dict) else None
    if config is None or isinstance(config, str):  # a name alone, as `compile("adam")` gives it
        return None if config is None else {"class_name": config, "config": {}}
    config = _checked(config, path)
    inner = config.get("config", {}).get("inner_optimizer")
    return config if inner is None else _checked(inner, path)


def _checked(config: Any, path: Path) -> Mapping[str, Any]:
    """The configuration of an optimizer, if it has the form of one."""
    if not (isinstance(config, dict) and isinstance(config.get("class_name"), str)):
        raise ValueError(
            f"{path}: the optimizer in its config.json must have a `class_name`, got {config!r:.60}"
        )
    if not isinstance(config.get("config", {}), dict):
        raise ValueError(f"{path}: the optimizer's `config` in its config.json is no mapping")
    return config


def _h5py() -> Any:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Keras' files need h5py: pip install h5py") from error
    return h5py
