# SPDX-License-Identifier: Apache-2.0
"""What `bench --target` does: a legend, then one table for each recipe and tree."""

import argparse
import itertools
import sys
import textwrap
from collections.abc import Mapping

from adamx.cli import names
from adamx.cli.bench.machine import host
from adamx.cli.bench.scoreboard import WIDTH
from adamx.cli.bench.target import machine_code
from adamx.cli.bench.target.compiler import Compiler
from adamx.cli.bench.target.rows import DTYPES, OPTAX, rows
from adamx.cli.bench.target.table import tables
from adamx.cli.bench.target.targets import INSTALL, TARGETS, Target
from adamx.cli.shapes import Shapes

LEGEND = (
    "Nothing is run on the chip: the figures are those of the compiled program, for one parameter. "
    "Kernels: those that work on whole leaves / all. Bytes: moved between the chip and its memory. "
    "Fewest: each gradient read once, each parameter and its state read and written once. "
    "Temp.: temporary bytes. Compile: seconds to trace, lower and compile, then their ratio to "
    "Optax's with parameters of the same dtype."
)
OF_CHIP = {
    "cuda": (
        "Instructions: those of the largest kernel. Busiest: the unit of the chip that needs most "
        "time for them (issue: the start of any kind). Bandwidth: how much of the memory's the "
        "step reaches at best. x Optax float32: how many times as fast as that it is at best."
    ),
    "tpu": (
        "Cycles: the compiler's estimate. x Optax float32: how many times as fast as that the "
        "step is by this estimate."
    ),
}
NO_TOOLS = f"Instructions are not counted, as ptxas or nvdisasm is not installed; {INSTALL}"


def compile_for_target(args: argparse.Namespace, trees: Mapping[str, Shapes], repeats: int) -> None:
    """Compiles every step for `args.target` and prints each table as soon as it is ready."""
    target = TARGETS[args.target]
    with Compiler(target) as compile_step:
        print("\n\n".join(textwrap.fill(part, WIDTH) for part in _head(target)), flush=True)
        for recipe, (title, tree) in itertools.product(args.recipes, trees.items()):
            float32 = None
            for dtype in DTYPES:
                heading = f"{recipe} on {title}, {dtype}"
                storages = names.offered(recipe, "storage", args.storages)
                print(f"compiling {heading} ...", file=sys.stderr, flush=True)
                steps = rows(recipe, dtype, storages, args.landings, tree, repeats)
                programs = {label: compile_step(step) for label, step in steps.items()}
                float32 = float32 or programs[OPTAX]
                print(f"\n{f'**{heading}**' if args.markdown else heading}\n")
                print(tables(programs, float32, args.markdown), flush=True)


def _head(target: Target) -> list[str]:
    note = [NO_TOOLS] if target.platform == "cuda" and not machine_code.tools_are_here() else []
    legend = f"{LEGEND} {OF_CHIP[target.platform]}"
    return [f"Compiled for one {target.chip} by {target.wheel()} on {host()}", legend, *note]
