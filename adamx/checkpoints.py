# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints with a description of their contents.

Orbax writes and reads the arrays, on any number of devices and processes. The description is saved
beside them as one array: how the moments are stored, and the shape and dtype of every leaf. It is
needed because Orbax casts what it reads to the requested dtypes, and 8-bit codes cast to float32
would be noise, without an error.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import paths
from adamx.core.state_paths import owned
from adamx.moments.convert import convert
from adamx.moments.described import Described, describing
from adamx.parallel.loss import Run

# The version of the state layout, raised when the meaning of an array in a state changes.
VERSION = 1


class Checkpoints:
    """A folder of checkpoints of one run. Needs `orbax-checkpoint`.

    Args:
      folder: the folder; it is created if needed.
      opt: the optimizer of the run.
      keep: how many of the latest checkpoints are kept.

    Example:
      >>> import adamx, jax.numpy as jnp, tempfile
      >>> opt, params = adamx.adamw(1e-3, storage="int8"), {"kernel": jnp.ones((2, 3))}
      >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, opt) as kept:
      ...     kept.save(10, Run(params, opt.init(params)))
      ...     run = kept.restore(Run(params, opt.init(params)))
      >>> print(run.state[0].nu["kernel"].dtype)
      uint8
    """

    def __init__(self, folder: Any, opt: optax.GradientTransformation, keep: int = 3):
        try:
            import orbax.checkpoint as orbax
        except ImportError as e:
            raise ImportError('checkpoints need Orbax: pip install -e ".[checkpoint]"') from e
        self._orbax, self._opt = orbax, opt
        options = orbax.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = orbax.CheckpointManager(Path(folder).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits until all checkpoints are written."""
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the latest complete checkpoint; None if there is none."""
        # Orbax's own list includes unfinished ones, which have another name on the disk.
        names = [path.name for path in self._manager.directory.iterdir()]
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def save(self, step: int, run: Run) -> None:
        """Writes a run, as `DataParallel.collect` returns it, in the background.

        The previous checkpoint remains the latest until the last byte is written, also if the
        process dies before that.
        """
        about = np.frombuffer(json.dumps(_about(self._opt, run)).encode(), np.uint8)
        save = self._orbax.args.StandardSave
        saved = self._manager.save(
            step,
            args=self._orbax.args.Composite(run=save(_plain(run)), about=save({"json": about})),
        )
        if not saved:
            raise ValueError(
                f"step {step} is not after {self._manager.latest_step()}, the latest checkpoint in "
                f"{self._manager.directory}: use another folder, or remove the later checkpoints"
            )

    def restore(
        self,
        like: Run,
        step: int | None = None,
        saved_by: optax.GradientTransformation | None = None,
    ) -> Run:
        """The run of a checkpoint, by default of the latest.

        Args:
          like: a run of the same layout, of arrays or of shapes with shardings
            (`DataParallel.like`).
          step: the step.
          saved_by: the optimizer that the run was saved with, if it has another storage: the
            moments are converted.

        Raises:
          ValueError: if the checkpoint does not fit the optimizer or `like`.
        """
        self._manager.wait_until_finished()
        step = self.latest if step is None else step
        if step is None or step not in self._manager.all_steps():
            known = ", ".join(map(str, self._manager.all_steps())) or "none"
            raise FileNotFoundError(
                f"no checkpoint {'' if step is None else f'{step} '}in {self._manager.directory} "
                f"(there are: {known})"
            )
        shapes = jax.tree.map(_shape, like)
        source = shapes
        if saved_by is not None:
            state = jax.eval_shape(saved_by.init, shapes.params)
            source = shapes._replace(state=_placed_like(state, shapes))
        self._check(step, source, saved_by or self._opt)
        restore = self._orbax.args.StandardRestore
        found = self._manager.restore(
            step, args=self._orbax.args.Composite(run=restore(_plain(source)))
        )["run"]
        run = Run(**{k: found.get(k) for k in Run._fields})
        if saved_by is None:
            return run
        state = convert(run.state, saved_by, self._opt, run.params)
        return run._replace(state=_moved(state, shapes.state))

    def _check(self, step: int, shapes: Run, opt: optax.GradientTransformation) -> None:
        """Raises if the checkpoint is of another layout, recipe, storage or model."""
        args = self._orbax.args.Composite(about=self._orbax.args.StandardRestore())
        json_bytes = self._manager.restore(step, args=args)["about"]["json"]
        theirs, ours = json.loads(np.asarray(json_bytes).tobytes()), _about(opt, shapes)
        where = f"checkpoint {step} in {self._manager.directory}"
        for complaint in _differences(theirs, ours):
            raise ValueError(f"{where}: {complaint}")


def _about(opt: optax.GradientTransformation, run: Run) -> dict[str, Any]:
    """The description of a run, as JSON values."""
    with describing():
        marked = jax.eval_shape(opt.init, jax.tree.map(_shape, run.params))
    found = jax.tree.leaves(marked, is_leaf=lambda x: isinstance(x, Described))
    marks = [x for x in found if isinstance(x, Described)]
    return {
        "version": VERSION,
        "moments": [[mark.rule.name, _storages(mark, run.params)] for mark in marks],
        "leaves": dict(_leaves(run)),
        "classes": str(jax.tree.structure(run.state)),
    }


def _storages(mark: Described, params: Any) -> Any:
    """The name of the storage, or a table if leaves differ."""
    leaves = [x for x in owned(mark.state, params) if x.owner is not None]
    found = {x.name: mark.choice.of(x.name, tuple(x.leaf.shape)).name for x in leaves}
    kinds = set(found.values())
    return kinds.pop() if len(kinds) == 1 else found


def _leaves(run: Run) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(_plain(jax.tree.map(_shape, run)))[0]:
        size = ",".join(map(str, leaf.shape))
        yield paths.name(path), f"{leaf.dtype}[{size}]"


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    if theirs["version"] > ours["version"]:
        yield (
            f"it has layout {theirs['version']}, this adamx reads up to {ours['version']}: "
            "install a newer one"
        )
    for (rule, storage), (our_rule, our_storage) in zip(
        theirs["moments"], ours["moments"], strict=False
    ):
        if rule != our_rule:
            yield f"it was saved with {rule}, the optimizer is {our_rule}"
        if storage != our_storage:
            yield (
                f"its moments rest as {_named(storage)}, the optimizer's as {_named(our_storage)}: "
                "give the optimizer that it was saved with, `restore(..., saved_by=opt)`"
            )
    for name in (*ours["leaves"], *theirs["leaves"]):
        here, there = ours["leaves"].get(name), theirs["leaves"].get(name)
        if here != there:
            yield f"{name} is {there or 'not in it'}, the run has {here or 'no such leaf'}"
    if theirs["classes"] != ours["classes"]:
        yield (
            f"its state has the classes {theirs['classes']}, the optimizer's has {ours['classes']}"
        )


def _named(storage: Any) -> str:
    if isinstance(storage, str):
        return repr(storage)
    first = ", ".join(f"{name}: {kind!r}" for name, kind in list(storage.items())[:3])
    return f"a table ({first} …)"


def _plain(run: Run) -> dict[str, Any]:
    """A run as a dictionary, without its fields that are None."""
    return {k: v for k, v in run._asdict().items() if v is not None}


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None)
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)


def _placed_like(state: Any, like: Run) -> Any:
    """The shapes of a state of another storage, with the shardings of the moments in `like`."""
    places: dict[Any, Any] = {}
    for x in owned(like.state, like.params):
        places.setdefault((x.owner, x.leaf.shape), x.leaf.sharding)
    shapes = [
        jax.ShapeDtypeStruct(
            x.leaf.shape, x.leaf.dtype, sharding=places.get((x.owner, x.leaf.shape))
        )
        for x in owned(state, like.params)
    ]
    return jax.tree.structure(state).unflatten(shapes)


def _moved(state: Any, like: Any) -> Any:
    """A state, moved to the shardings of `like`."""

    def one(x: Any, at: Any) -> Any:
        return x if at.sharding is None else jax.device_put(x, at.sharding)

    return jax.tree.map(one, state, like)
