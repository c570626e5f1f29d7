# SPDX-License-Identifier: Apache-2.0
"""PyTorch's side of a conversion."""

from pathlib import Path
from typing import Any

import jax

from adamx.cli.convert_state import checkpoint, torch_files
from adamx.cli.convert_state.settings import Arrived, Settings
from adamx.cli.convert_state.torch_files import Found, holds
from adamx.cli.convert_state.tree import made_up, retyped
from adamx.cli.flags import UsageError
from adamx.core import paths
from adamx.interop import torch as bridge
from adamx.interop.names import Problems
from adamx.interop.report import Report
from adamx.interop.torch.groups import read_groups

__all__ = ["arrive", "holds", "leave"]


def arrive(path: Path, settings: Settings) -> Arrived:
    """A run of ours from a checkpoint of torch's."""
    (moved, found), mapping = _moved(path, settings), settings.mapping
    leaves = jax.tree_util.tree_flatten_with_path(moved.state)[0]
    counts = [int(x) for path, x in leaves if paths.name(path).rpartition("/")[2] == "count"]
    given = found.optimizer, found.weights, mapping.order, mapping.kind
    groups = read_groups(*given, Problems(""))
    recipe = _recipe(groups, {row.group for row in moved.report.rows}, settings)
    report = _with_guesses(moved.report, settings)
    return Arrived(moved.params, moved.opt, moved.state, max(counts, default=0), report, recipe)


def leave(folder: Path, path: Path, settings: Settings) -> tuple[int, Report]:
    """A checkpoint of torch's from one of ours; returns its step and what went where."""
    if settings.like is None:
        raise UsageError("the way back needs --like FILE, a torch checkpoint of the same model")
    moved, found = _moved(Path(settings.like), settings)
    step, run = checkpoint.read(folder, moved.opt, moved.params, moved.state, settings.step)
    mapping = settings.mapping
    back = bridge.to_torch(
        run.params,
        run.state,
        moved.opt,
        found.weights,
        found.optimizer,
        layout=settings.layout,
        names=mapping.names,
        layouts=mapping.layouts,
        order=mapping.order,
        kind=mapping.kind,
    )
    torch_files.write(path, found._replace(weights=back.weights, optimizer=back.optimizer))
    stale = [str(key) for key in found.content if key not in found.keys]
    note = f"as {settings.like} has it, not of this checkpoint: {', '.join(stale)}"
    return step, back.report._replace(notes=[*back.report.notes, *([note] if stale else [])])


def _moved(path: Path, settings: Settings) -> tuple[bridge.Moved, Found]:
    found, mapping = torch_files.read(path), settings.mapping
    shapes = settings.shapes
    if shapes is None:
        shapes = made_up(found.weights, settings.layout, mapping.names, mapping.layouts)
    moved = bridge.from_torch(
        found.weights,
        found.optimizer,
        retyped(shapes, settings.dtype),
        layout=settings.layout,
        names=mapping.names,
        layouts=mapping.layouts,
        order=mapping.order,
        kind=mapping.kind,
        storage=settings.storage,
        landing=settings.landing,
    )
    return moved, found


def _with_guesses(report: Report, settings: Settings) -> Report:
    """The report, with a line on kernels that may be tables: their number of axes alone told."""
    if settings.shapes is not None or settings.layout == "torch":
        return report
    known = settings.mapping.layouts
    linear = [row for row in report.rows if row.kind == "linear"]
    guessed = [
        row
        for row in linear
        if row.leaf not in settings.mapping.names
        and not any(paths.matches(pattern, row.leaf) for pattern in known)
    ]
    if not guessed:
        return report
    shown = paths.few([row.leaf for row in guessed], 8)
    first = guessed[0]
    words = first.leaf.split("/")[:-1]
    table = "/".join([*words, "embeddings" if settings.layout == "haiku" else "embedding"])
    note = (
        f"linear by their two axes alone, so transposed: {shown}. If one is an Embedding, give "
        f'--mapping with {{"names": {{"{table}": "{first.source}"}}}} for it'
    )
    return report._replace(notes=[*report.notes, note])


def _recipe(groups: list[Any], labels: set[str], settings: Settings) -> str:
    """The optimizer as a program builds it."""
    ours = {"storage": settings.storage, "landing": settings.landing}
    made = {
        group.label: f"adamx.interop.torch.{group.kind}("
        + ", ".join(f"{k}={v!r}" for k, v in (group.arguments | ours).items())
        + ")"
        for group in groups
        if group.label in labels
    }
    if len(labels) == 1 and made:
        return f"opt = {next(iter(made.values()))}"
    if "" in labels:
        made["frozen"] = "optax.set_to_zero()"
    rows = "".join(f'\n    "{label}": {recipe},' for label, recipe in made.items())
    return f"opt = optax.partition({{{rows}\n}}, labels)  # the column `group`; - is frozen"
