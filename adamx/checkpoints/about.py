# SPDX-License-Identifier: Apache-2.0
"""The description of a run, which a checkpoint keeps beside the arrays.

It is needed because Orbax casts what it reads to the requested dtypes, and 8-bit codes cast to
float32 would be noise, without an error.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from adamx.checkpoints.shapes import plain, shape_of
from adamx.core import paths
from adamx.core.instances import instances
from adamx.core.state_paths import owned
from adamx.moments.described import Described, describing
from adamx.parallel.loss import Run

# The version of the state layout, raised when the meaning of an array in a state changes. With 2,
# `int8` and `int4` got other codes, and the remainders of landings that are integers other signs.
VERSION = 2


def describe(opt: optax.GradientTransformation, run: Run) -> dict[str, Any]:
    """The description of a run, as JSON values."""
    with describing():
        marked = jax.eval_shape(opt.init, jax.tree.map(shape_of, run.params))
    marks = instances(marked, Described)
    return {
        "version": VERSION,
        "moments": [[mark.rule.name, _storages(mark, run.params)] for mark in marks],
        "leaves": dict(_leaves(run)),
        "classes": str(jax.tree.structure(run.state)),
    }


def packed(about: dict[str, Any]) -> dict[str, np.ndarray]:
    """A description as arrays, with a checksum of its own."""
    text = json.dumps(about).encode()
    return {"json": np.frombuffer(text, np.uint8), "crc32": np.array([zlib.crc32(text)], np.uint32)}


def unpacked(found: Mapping[str, Any]) -> dict[str, Any]:
    """The description in these arrays; the first checkpoints have no checksum."""
    text = np.asarray(found["json"]).tobytes()
    if "crc32" in found and int(np.asarray(found["crc32"])[0]) != zlib.crc32(text):
        raise ValueError("its checksum is not that of what was saved")
    return json.loads(text)


def _storages(mark: Described, params: Any) -> Any:
    """The name of the storage, or a table if leaves differ."""
    leaves = [x for x in owned(mark.state, params) if x.owner is not None]
    found = {x.name: mark.choice.of(x.name, tuple(x.leaf.shape)).name for x in leaves}
    kinds = set(found.values())
    return kinds.pop() if len(kinds) == 1 else found


def _leaves(run: Run) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(plain(jax.tree.map(shape_of, run)))[0]:
        size = ",".join(map(str, leaf.shape))
        yield paths.name(path), f"{leaf.dtype}[{size}]"


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    if theirs["version"] > ours["version"]:
        yield (
            f"it has layout {theirs['version']}, this adamx reads up to {ours['version']}: "
            "install a newer one"
        )
    if theirs["version"] < 2 and (changed := sorted(_changed(theirs))):
        yield (
            f"it has layout {theirs['version']}, whose codes of {' and '.join(changed)} have "
            "changed since: with the adamx that wrote it, make 'float32' moments of it by "
            "`adamx.convert` and weights by `master_params`, and save those"
        )
    for (rule, storage), (our_rule, our_storage) in zip(
        theirs["moments"], ours["moments"], strict=False
    ):
        if rule != our_rule:
            yield f"it was saved with {rule}, the optimizer is {our_rule}"
        if storage != our_storage:
            yield (
                f"its moments are stored as {_named(storage)}, the optimizer's as "
                f"{_named(our_storage)}: give the optimizer that it was saved with, "
                "`restore(..., saved_by=opt)`"
            )
    for name in (*ours["leaves"], *theirs["leaves"]):
        here, there = ours["leaves"].get(name), theirs["leaves"].get(name)
        if here != there:
            yield f"{name} is {there or 'not in it'}, the run has {here or 'no such leaf'}"
    if theirs["classes"] != ours["classes"]:
        yield (
            f"its state has the classes {theirs['classes']}, the optimizer's has {ours['classes']}"
        )


def _changed(about: dict[str, Any]) -> set[str]:
    """What a checkpoint with layout 1 has that is read differently today."""
    tables = (x.values() if isinstance(x, dict) else [x] for _, x in about["moments"])
    storages = {storage for table in tables for storage in table}
    found = {repr(storage) for storage in storages & {"int8", "int4"}}
    remainders = (dtype for name, dtype in about["leaves"].items() if "remainder" in name)
    return found | ({"remainders"} if any(x.startswith("int") for x in remainders) else set())


def _named(storage: Any) -> str:
    if isinstance(storage, str):
        return repr(storage)
    first = ", ".join(f"{name}: {kind!r}" for name, kind in list(storage.items())[:3])
    return f"a table ({first} …)"
