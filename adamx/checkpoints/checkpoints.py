# SPDX-License-Identifier: Apache-2.0
"""A folder of checkpoints: saves in the background, restores only what was saved."""

import shutil
from pathlib import Path
from typing import Any

import jax
import optax
from jax.experimental import multihost_utils

from adamx.checkpoints import about, damage
from adamx.checkpoints.checksums import checksums
from adamx.checkpoints.quiet import quiet, silence
from adamx.checkpoints.shapes import moved, placed_like, plain, shape_of
from adamx.moments.convert import convert
from adamx.parallel.loss import Run, checked_run


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
            raise ImportError('checkpoints need Orbax: pip install "adamx[checkpoint]"') from e
        self._orbax, self._opt = orbax, opt
        self._folder, self._saving = Path(folder).absolute(), 0
        if self._folder.exists() and not self._folder.is_dir():
            raise NotADirectoryError(f"{self._folder} is a file, not a folder of checkpoints")
        silence()
        options = orbax.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = orbax.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Waits until all checkpoints are written.

        Raises:
          SaveError: if the last one could not be.
        """
        try:
            self._wait()
        finally:
            self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps of the complete checkpoints; one may be damaged all the same."""
        # Orbax's own list includes unfinished ones, which have another name on the disk.
        names = [path.name for path in self._folder.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def latest(self) -> int | None:
        """The step of the latest complete checkpoint; None if there is none."""
        return max(self.steps, default=None)

    def save(self, step: int, run: Run) -> None:
        """Writes a run, as `DataParallel.collect` returns it, in the background.

        The previous checkpoint remains the latest until the last byte is written, also if the
        process dies before that.

        Raises:
          SaveError: if the previous save failed, such as on a full disk.
        """
        checked_run("run", run)
        self._wait()
        described = about.describe(self._opt, run) | {"checksums": checksums(plain(run))}
        save = self._orbax.args.StandardSave
        args = self._orbax.args.Composite(run=save(plain(run)), about=save(about.packed(described)))
        self._saving = step
        try:
            with quiet():
                saved = self._manager.save(step, args=args)
        except Exception as error:
            self._explain(error)
            raise
        if not saved:
            raise ValueError(
                f"step {step} is not after {self._manager.latest_step()}, the latest checkpoint in "
                f"{self._folder}: use another folder, or remove the later checkpoints"
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
          saved_by: the optimizer that the run was saved with, if it has another storage, or no
            landing where that of now has one: the state is converted, by `adamx.convert`.

        Raises:
          DamagedError: if the checkpoint is not what was saved; names the newest one that is.
          ValueError: if the checkpoint does not fit the optimizer or `like`.
        """
        checked_run("like", like)
        self._wait()
        step = self.latest if step is None else step
        if step is None or step not in self.steps:
            known = ", ".join(map(str, self.steps)) or "none"
            raise damage.NoCheckpointError(
                f"no checkpoint {'' if step is None else f'{step} '}in {self._folder} "
                f"(there are: {known})"
            )
        shapes = jax.tree.map(shape_of, like)
        source = shapes
        if saved_by is not None:
            state = jax.eval_shape(saved_by.init, shapes.params)
            source = shapes._replace(state=placed_like(state, shapes))
        run, wrong = self._read(step, source, saved_by or self._opt)
        if run is None:
            advice = self._advice(step, source, saved_by or self._opt)
            raise damage.DamagedError(f"{self._named(step)} is damaged: {wrong}; {advice}")
        if saved_by is None:
            return run
        state = convert(run.state, saved_by, self._opt, run.params)
        return run._replace(state=moved(state, shapes.state))

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, so that these can be saved again."""
        if jax.process_index() == 0:
            for later in self.steps:
                path = self._folder / str(later)
                if later > step:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("later checkpoints are deleted")
        self._manager.reload()

    def _read(
        self, step: int, shapes: Run, opt: optax.GradientTransformation
    ) -> tuple[Run | None, str]:
        """The run, or None and what is wrong with it."""
        args, restore = self._orbax.args.Composite, self._orbax.args.StandardRestore
        part, ours = "about", about.describe(opt, shapes)
        try:
            with quiet():
                found = self._manager.restore(step, args=args(about=restore()))
                theirs = about.unpacked(found["about"])
                complaints = list(about.differences(theirs, ours))
                if not complaints:
                    part = "run"
                    found = self._manager.restore(step, args=args(run=restore(plain(shapes))))
        except (MemoryError, jax.errors.JaxRuntimeError):  # no fault of the checkpoint
            raise
        except Exception as error:
            why = damage.short(error)
            if part == "about" and not (self._folder / str(step) / part).exists():
                why = "there is none: did Orbax alone write this checkpoint?"
            return None, f"`{part}` cannot be read ({why})"
        for complaint in complaints:
            raise ValueError(f"{self._named(step)}: {complaint}")
        found = found["run"]
        for name, now in checksums(found).items():
            if theirs.get("checksums", {}).get(name, now) != now:
                return None, f"{name} is not what was saved, by its checksum"
        return Run(**{k: found.get(k) for k in Run._fields}), ""

    def _advice(self, step: int, shapes: Run, opt: optax.GradientTransformation) -> str:
        """Names the newest whole checkpoint."""
        others = [other for other in reversed(self.steps) if other != step]
        if jax.process_count() > 1:  # reading takes all processes, of which some may have succeeded
            known = ", ".join(map(str, others)) or "none"
            return f"the others are of steps: {known} (`step=N`, or `train --resume --step N`)"
        for other in others:
            try:
                is_whole = self._read(other, shapes, opt)[0] is not None
            except ValueError:  # of another optimizer or model
                continue
            if is_whole:
                return (
                    f"the newest whole one is of step {other} (`step={other}`, or "
                    f"`train --resume --step {other}`)"
                )
        return "no other one is whole"

    def _named(self, step: int) -> str:
        return f"checkpoint {step} in {self._folder}"

    def _wait(self) -> None:
        """Waits for the save in the background; raises `SaveError` if it failed."""
        try:
            with quiet():
                self._manager.wait_until_finished()
        except Exception as error:
            self._explain(error)
            raise

    def _explain(self, error: Exception) -> None:
        """Raises the error of a save again in one sentence, if the disk is the reason."""
        if why := damage.of_the_disk(error):
            left = f"the latest is of step {self.latest}" if self.steps else "there is none before"
            said = f"cannot write {self._named(self._saving)}: {why}; {left}"
            raise damage.SaveError(said) from error
