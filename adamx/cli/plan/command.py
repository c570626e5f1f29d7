# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx plan`, and what it does."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import adamx
from adamx.cli import names
from adamx.cli.disk import writing
from adamx.cli.flags import UsageError, add_names
from adamx.cli.plan import device_share, sources
from adamx.cli.plan.formats import Row, side_by_side
from adamx.cli.plan.models import MODELS
from adamx.cli.plan.sources import DTYPE
from adamx.core import dtypes
from adamx.core.tables import as_markdown, as_text
from adamx.footprint import Footprint

LANDINGS = tuple(adamx.landing.NAMED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `plan`."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help=f"a file, or one of {', '.join(MODELS)}")
    names.add_recipe(parser)
    add(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="the dtype of all parameters (default: what SOURCE says)",
    )
    add_names(parser, "--storages", names.STORAGES, "storages of the moments")
    add_names(parser, "--landings", LANDINGS, "landings of the steps")
    add(
        "--mesh",
        type=device_share.mesh,
        default={},
        metavar="AXES",
        help="the axes of the mesh, such as data=8,model=4 (default: one device)",
    )
    add(
        "--zero",
        type=int,
        choices=(0, 1, 2, 3),
        default=0,
        help="the stage of ZeRO, which says what the axis `data` splits: 0 nothing, 1 moments and "
        "landing, 2 also gradients, 3 also parameters (default: 0)",
    )
    add("--markdown", action="store_true", help="print a Markdown table")
    add("--json", metavar="FILE", help="also write every figure, in bytes, to FILE")


def run(args: argparse.Namespace) -> int:
    """Prints the table."""
    if args.zero and "data" not in args.mesh:
        raise UsageError(f"--zero {args.zero} splits over the axis `data`: add --mesh data=N")
    leaves = sources.read(args.source)
    params = jax.tree.map(lambda leaf: _trained(leaf, args.dtype), leaves)
    if not jax.tree.leaves(params):
        raise UsageError(f"{args.source} lists no floating-point parameters")
    shard = device_share.shard(args.mesh, args.zero)
    args.storages = names.offered(args.recipe, "storage", args.storages)
    args.landings = names.offered(args.recipe, "landing", args.landings)
    rows = side_by_side(args.recipe, args.storages, args.landings, params, shard)
    if args.json:
        _write(args, rows)
    table = as_markdown if args.markdown else as_text
    print(f"{_title(args, params)}{_left_out(leaves)}\n\n{table(*_cells(rows, args.landings))}")
    return 0


def _trained(leaf: jax.ShapeDtypeStruct, dtype: str | None) -> jax.ShapeDtypeStruct | None:
    """The leaf in its training dtype, or None if it is not floating point."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    if leaf.dtype.itemsize < 2 and dtype is None:
        raise UsageError(f"weights are stored in {leaf.dtype}: set the training dtype with --dtype")
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype) if dtype else dtypes.of(leaf))


def _write(args: argparse.Namespace, rows: list[Row]) -> None:
    keys = ("source", "recipe", "dtype", "mesh", "zero")
    record: dict[str, Any] = {key: getattr(args, key) for key in keys}
    record["size"] = rows[0].footprint.size
    record["rows"] = [
        {"storage": row.storage, "landing": row.landing, "bytes": _bytes(row.footprint)}
        for row in rows
    ]
    with writing(args.json):
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _bytes(footprint: Footprint) -> dict[str, float]:
    figures = footprint._asdict() | {"total": footprint.total}
    del figures["size"]
    return figures


def _title(args: argparse.Namespace, params: Any) -> str:
    """What is planned and for which devices, in two lines."""
    leaves = jax.tree.leaves(params)
    what = (
        f"{args.source}: {sum(leaf.size for leaf in leaves):,} parameters in {len(leaves):,} "
        f"{'leaf' if len(leaves) == 1 else 'leaves'}, {_dtypes(leaves)}; {args.recipe}"
    )
    if not args.mesh:
        return f"{what}\non one device"
    use = {"data": f"ZeRO {args.zero}" if args.zero else "copies"}
    axes = [f"{name}={n} ({use.get(name, 'splits')})" for name, n in args.mesh.items()]
    return f"{what}\non each of {math.prod(args.mesh.values()):,} devices: {', '.join(axes)}"


def _left_out(leaves: Any) -> str:
    others = [leaf for leaf in jax.tree.leaves(leaves) if _trained(leaf, DTYPE) is None]
    if not others:
        return ""
    return f"\nleft out, as they do not train: {len(others):,} of {_dtypes(others)}"


def _dtypes(leaves: list[Any]) -> str:
    return ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))


def _cells(rows: list[Row], landings: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header, which names the unit of the table, and the lines.

    Landings with the same bytes share a line; their counters are ignored.
    """
    largest = max(row.footprint.total for row in rows)
    unit, name = next((unit, name) for unit, name in _UNITS if largest >= unit)
    digits = 0 if unit == 1 or largest >= 1000 * unit else 1 if largest >= 100 * unit else 2
    header = [name, "params", "grads", "moments", "landing", "total", "B/param"]
    alike: dict[tuple[str, Footprint], list[str | None]] = {}
    for row in rows:
        key = (row.storage, row.footprint._replace(other=0))
        alike.setdefault(key, []).append(row.landing)
    lines = []
    for (storage, parts), alike_landings in alike.items():
        figures = (parts.parameters, parts.gradients, parts.moments, parts.landing, parts.total)
        cells = [f"{figure / unit:,.{digits}f}" for figure in figures]
        label = _label(storage, alike_landings, landings)
        lines.append([label, *cells, f"{parts.per_parameter.total:.2f}"])
    return header, lines


# One unit per table, so that its figures compare at a glance.
_UNITS = ((1e9, "GB (1e9 bytes)"), (1e6, "MB (1e6 bytes)"), (1e3, "kB (1e3 bytes)"), (1, "bytes"))


def _label(storage: str, names: list[str | None], landings: Sequence[str]) -> str:
    if names == [None]:
        return f"{storage} throughout"
    if len(names) > 1 and names == [*landings]:
        return f"{storage} + any landing"
    return f"{storage} + {', '.join(filter(None, names))}"
