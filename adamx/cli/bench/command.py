# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx bench`, and what it does."""

import argparse
import json
import math
import sys
import textwrap
from typing import TextIO

from adamx.cli import devices, names
from adamx.cli.bench.contest import Samples, contest
from adamx.cli.bench.dispatch import dispatch_table
from adamx.cli.bench.guard_costs import QUICK, Load, watching_table
from adamx.cli.bench.machine import machine
from adamx.cli.bench.scoreboard import WIDTH, scoreboard, stacked
from adamx.cli.bench.target.command import compile_for_target
from adamx.cli.bench.target.targets import TARGETS
from adamx.cli.flags import UsageError, add_names, names_among, whole
from adamx.cli.shapes import TREES
from adamx.core.tables import as_markdown, as_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `bench`."""
    add = parser.add_argument
    add(
        "--trees",
        type=names_among(tuple(TREES)),
        metavar="NAMES",
        help="parameter trees, separated by commas: one (33.5 M in one leaf), gpt2 (124 M in 148), "
        "leaves (1,000 small ones), small (10) (default: one,gpt2,leaves)",
    )
    add(
        "--recipes",
        type=names_among(names.RECIPES),
        default=["adamw"],
        metavar="NAMES",
        help=f"recipes, separated by commas: {', '.join(names.RECIPES)} (default: adamw)",
    )
    add_names(
        parser, "--storages", names.STORAGES, "storages of our moments (Optax's stay in float32)"
    )
    add(
        "--landings",
        type=names_among(names.LANDINGS),
        metavar="NAMES",
        help="landings, with each of which bfloat16 parameters take part too: "
        f"{', '.join(names.LANDINGS)} (default: none; all with --target)",
    )
    add("--without-kernels", action="store_true", help="measure ours without loops in C++ too")
    add(
        "--target",
        choices=tuple(TARGETS),
        metavar="NAME",
        help="instead, count what a step does on an accelerator that is not here: "
        f"{', '.join(TARGETS)} (default trees: one)",
    )
    add(
        "--devices",
        type=whole(2),
        metavar="N",
        help="instead, measure the cost of dispatching a step to N devices (virtual on a CPU)",
    )
    add(
        "--guards",
        action="store_true",
        help="instead, measure the cost of observing and of guarding",
    )
    add(
        "--repeats",
        type=whole(1),
        metavar="N",
        help="samples of each figure (default: 15; 1 with --target)",
    )
    add("--quick", action="store_true", help="a quick look: --trees small --repeats 2 unless given")
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", metavar="FILE", help="also write every sample to FILE")


def run(args: argparse.Namespace) -> int:
    """Measures one tree after the other and prints each table as soon as it is ready."""
    if args.target:
        return _for_target(args)
    trees = args.trees or (["small"] if args.quick else ["one", "gpt2", "leaves"])
    repeats = args.repeats or (2 if args.quick else 15)
    if args.devices or args.guards:
        return _special(args, repeats)
    file = _open(args.json)
    results = []
    print(textwrap.fill(machine(), WIDTH), flush=True)
    for recipe in args.recipes:
        for name in trees:
            print(f"measuring {recipe} on {name} ...", file=sys.stderr, flush=True)
            tree = TREES[name]()
            landings = args.landings or ()
            storages = names.offered(recipe, "storage", args.storages)
            samples = contest(recipe, storages, tree, repeats, landings, args.without_kernels)
            title = f"{recipe} on {name}: {_size(tree)}{_beside(recipe)}"
            results.append({"title": title, "recipe": recipe, "tree": name, "samples": samples})
            print("\n" + _table(title, samples, args.markdown), flush=True)
    if file:
        with file:
            json.dump(
                {"machine": machine(), "repeats": repeats, "results": results}, file, indent=1
            )
    return 0


def _for_target(args: argparse.Namespace) -> int:
    if args.json or args.devices or args.guards:
        raise UsageError("--target excludes --devices, --guards and --json")
    names_of_trees = args.trees or ["small" if args.quick else "one"]
    trees = {f"{name}: {_size(tree := TREES[name]())}": tree for name in names_of_trees}
    args.landings = args.landings or list(names.LANDINGS)
    compile_for_target(args, trees, args.repeats or 1)
    return 0


def _special(args: argparse.Namespace, repeats: int) -> int:
    flag = "--devices" if args.devices else "--guards"
    if args.json or args.trees or (args.devices and args.guards):
        raise UsageError(f"{flag}: --devices and --guards exclude each other, --trees and --json")
    if args.devices:
        devices.make_devices(args.devices)
    print(machine(), flush=True)
    for recipe in args.recipes:
        if args.devices:
            leaves = 10 if args.quick else 100
            table = dispatch_table(recipe, args.devices, leaves, repeats)
            title = f"{recipe}: {leaves} small leaves on {args.devices} devices"
        else:
            load = QUICK if args.quick else Load()
            table = watching_table(recipe, repeats, load)
            title = f"{recipe}: {load.parameters:,} parameters in one leaf; a small transformer"
        print(f"\n{title}\n\n{(as_markdown if args.markdown else as_text)(*table)}", flush=True)
    return 0


def _beside(recipe: str) -> str:
    """What Optax's column is, where that is another recipe."""
    reference = names.reference(recipe)
    return "" if reference == recipe else f"; beside Optax's {reference}, as it has no {recipe}"


def _open(path: str | None) -> TextIO | None:
    """Opens the file before anything is measured, so that a bad path fails early."""
    if path is None:
        return None
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _size(tree: dict[str, tuple[int, ...]]) -> str:
    parameters = sum(math.prod(shape) for shape in tree.values())
    return f"{parameters:,} parameters in {len(tree):,} {'leaf' if len(tree) == 1 else 'leaves'}"


def _table(title: str, samples: Samples, markdown: bool) -> str:
    header, rows = scoreboard(samples)
    if markdown:
        return f"**{title}**\n\n{as_markdown(header, rows)}"
    return f"{title}\n\n{stacked(header, rows)}"
