# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx run-exported`, and what it does."""

import argparse
from pathlib import Path

import jax

from adamx.cli.export import file
from adamx.cli.flags import check_file, optional_import, whole
from adamx.cli.progress import progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `run-exported`."""
    add = parser.add_argument
    add("file", metavar="FILE", help="a file written by `train --export`")
    add("--steps", type=whole(1), default=100, metavar="N", help="steps to train (default: 100)")
    add("--out", metavar="FILE", help="write the result to FILE, for another `run-exported`")


def run(args: argparse.Namespace) -> int:
    """Continues the training."""
    optional_import("flatbuffers", "flatbuffers")
    if args.out:
        check_file(args.out)
    found = file.read(Path(args.file))
    print(f"{found.about['title']}\nafter {found.about['steps']:,} steps\n", flush=True)
    # On a device that is named, as the step's results are: or the second step compiles again.
    arrays = jax.device_put(found.arrays, jax.devices()[0])
    step = jax.jit(found.step, donate_argnums=0)
    units = tuple(found.about["units"])
    trained = found.about["steps"] - found.about["begun"]  # since the first batch
    with progress("exported step", args.steps, (str(units[0]), int(units[1]))) as report:
        for i in range(args.steps):
            batch = found.batches[(trained + i) % len(found.batches)]
            arrays, loss = step(arrays, batch)
            report(i + 1, {"loss": float(loss)})
    if args.out:
        about = found.about | {"steps": found.about["steps"] + args.steps}
        arrays = jax.device_get(arrays)
        file.write(Path(args.out), found._replace(about=about, arrays=arrays))
        print(f"\nwritten: {args.out}")
    return 0
