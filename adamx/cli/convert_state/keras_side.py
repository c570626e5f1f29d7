# SPDX-License-Identifier: Apache-2.0
"""Keras' side of a conversion.

A file of Keras does not name the optimizer's variables, so the mapping's "names" go from our paths
to the arrays of the file, such as `layers/dense/vars/0`, in the order of
`model.trainable_variables`. A `.weights.h5` does not say which optimizer it is from either: "kind".
"""

from pathlib import Path
from typing import Any

from adamx.cli import disk
from adamx.cli.convert_state import checkpoint
from adamx.cli.convert_state.settings import Arrived, Settings
from adamx.cli.convert_state.tree import put, retyped
from adamx.cli.flags import UsageError, optional_import
from adamx.interop import keras as bridge
from adamx.interop import states
from adamx.interop.keras.configured import RECIPES
from adamx.interop.keras.files import File
from adamx.interop.report import Report, Row, lost

__all__ = ["arrive", "holds", "leave"]


def holds(path: Path) -> bool:
    """Whether this is the name of a file of Keras."""
    return path.name.endswith((".keras", ".weights.h5"))


def arrive(path: Path, settings: Settings) -> Arrived:
    """A run of ours from a file of Keras."""
    carried, file = _carried(path, settings)
    before, after = _read(*_run(path, file, settings)), _read(*carried)
    report = _report(before, after, settings)
    steps = max((m.count for m in after[1].values()), default=0)
    return Arrived(
        carried.params, carried.opt, carried.state, steps, report, _recipe(file, settings)
    )


def leave(folder: Path, path: Path, settings: Settings) -> tuple[int, Report]:
    """A file of Keras from a checkpoint of ours; returns its step and what went where."""
    if settings.like is None:
        raise UsageError("the way back needs --like FILE, a file of Keras of the same model")
    like = Path(settings.like)
    made, _ = _carried(like, settings)
    step, run = checkpoint.read(folder, made.opt, made.params, made.state, settings.step)
    names = settings.mapping.names
    with disk.writing(path):
        bridge.to_keras(run.params, run.state, made.opt, like, names=names, out=path)
    back, _ = _carried(path, settings)
    before = _read(run.params, made.opt, run.state)
    return step, _report(before, _read(*back), settings)


def _carried(path: Path, settings: Settings) -> tuple[bridge.Carried, File]:
    """The run in the settings' storage, and what the file holds."""
    optional_import("h5py", "h5py")
    file = bridge.read(path)
    ours = {"storage": settings.storage, "landing": settings.landing}
    return _run(path, file, settings, settings.dtype, **ours), file


def _run(
    path: Path, file: File, settings: Settings, dtype: str | None = None, **ours: str
) -> bridge.Carried:
    """The run in a dtype and a storage; without any as it lies in the file: nothing is lost."""
    opt = bridge.of_config(_config(file, path, settings), **ours)
    params = retyped(_shapes(file, path, settings), dtype)
    return bridge.from_keras(path, params, opt, names=settings.mapping.names)


def _config(file: File, path: Path, settings: Settings) -> dict[str, Any]:
    kinds = {name.lower(): name for name in RECIPES}
    kind = settings.mapping.kind
    if kind is not None and kind.lower() not in kinds:
        raise UsageError(f'"kind" of Keras must be one of {", ".join(kinds)}, got {kind!r}')
    if file.config is not None:
        return dict(file.config)
    if kind is None:
        raise UsageError(f'{path} does not say which optimizer: give a --mapping with "kind"')
    return {"class_name": kinds[kind.lower()], "config": {}}


def _shapes(file: File, path: Path, settings: Settings) -> Any:
    """The parameters as nested dictionaries, by the paths in the mapping."""
    names, tree = settings.mapping.names, {}
    if settings.shapes is not None:
        return settings.shapes
    if not names:
        raise UsageError(
            f'{path} needs a --mapping with "names": our paths to these of its arrays, in the '
            f"order of model.trainable_variables: {', '.join(file.weights)}"
        )
    for leaf, name in names.items():
        if name not in file.weights:
            raise UsageError(f"{path} has no {name}, it has {', '.join(file.weights)}")
        put(tree, leaf, file.weights[name].shape, file.weights[name].dtype)
    return tree


def _read(params: Any, opt: Any, state: Any) -> Any:
    return states.read(opt, params, state)


def _report(before: Any, after: Any, settings: Settings) -> Report:
    gone = lost(before, after)
    names = settings.mapping.names
    return Report([Row(leaf, str(names[leaf]), "same", "", gone[leaf]) for leaf in names], [])


def _recipe(file: File, settings: Settings) -> str:
    """The optimizer as a program builds it."""
    config = _config(file, Path(), settings)
    given = {k: v for k, v in config.get("config", {}).items() if k != "name" and v is not None}
    given |= {"storage": settings.storage, "landing": settings.landing}
    said = ", ".join(f"{k}={v!r}" for k, v in given.items())
    return f"opt = adamx.interop.keras.{config['class_name'].lower()}({said})"
