# SPDX-License-Identifier: Apache-2.0
"""Our end of a conversion: an Orbax checkpoint, written and read."""

from pathlib import Path
from typing import Any

from adamx.checkpoints import Checkpoints, NoCheckpointError, SaveError
from adamx.cli import disk
from adamx.cli.flags import UsageError, optional_import
from adamx.parallel import Run


def write(folder: Path, opt: Any, step: int, run: Run) -> None:
    """Saves a run as the only checkpoint of a new folder."""
    optional_import("orbax.checkpoint", "orbax-checkpoint")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder: name a new one")
    try:
        with disk.writing(folder), Checkpoints(folder, opt) as kept:
            kept.save(step, run)
    except SaveError as error:
        raise disk.DiskError(str(error)) from error


def read(folder: Path, opt: Any, params: Any, state: Any, step: int | None) -> tuple[int, Run]:
    """A run of that optimizer, and its step."""
    optional_import("orbax.checkpoint", "orbax-checkpoint")
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    try:
        with Checkpoints(folder, opt) as kept:
            found = kept.restore(Run(params, state), step)
            return (kept.latest or 0) if step is None else step, found
    except (ValueError, NoCheckpointError) as error:
        raise UsageError(str(error)) from error
