# SPDX-License-Identifier: Apache-2.0
"""The flags of `python -m adamx convert-state`, and what it does."""

import argparse
from pathlib import Path
from types import ModuleType

from adamx.cli import names
from adamx.cli.convert_state import checkpoint, mapping
from adamx.cli.convert_state.settings import Settings
from adamx.cli.convert_state.sides import side_of
from adamx.cli.flags import UsageError, check_writable, whole
from adamx.cli.plan import sources
from adamx.interop.torch.conventions import CONVENTIONS
from adamx.parallel import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `convert-state`."""
    add = parser.add_argument
    add("source", metavar="SRC", help="a checkpoint of PyTorch or Keras, or a folder of ours")
    add(
        "target", metavar="DST", help="a new folder, or a file of the other library on the way back"
    )
    add("--mapping", metavar="FILE", help="names and layouts where they differ, as JSON")
    add(
        "--layout",
        choices=tuple(CONVENTIONS),
        default="flax",
        help="how modules here name and lay out their parameters (default: flax)",
    )
    add(
        "--shapes",
        metavar="FILE",
        help="the shapes of the parameters here, as JSON (default: made up from the names "
        "there, where all weights of two axes are linear layers')",
    )
    add(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="the dtype of the parameters here (default: that of SRC)",
    )
    add("--storage", choices=names.STORAGES, default="float32", help="how moments are stored")
    add("--landing", choices=names.LANDINGS, default="nearest", help="how steps are written")
    add("--like", metavar="FILE", help="on the way back: a checkpoint whose form DST gets")
    add("--step", type=whole(0), metavar="N", help="on the way back: which (default: the latest)")


def run(args: argparse.Namespace) -> int:
    """Converts, and prints what went where."""
    source, target = Path(args.source), Path(args.target)
    check_writable(args.target)
    there, back = side_of(source), side_of(target)
    settings = _settings(args)
    try:
        if there is not None:
            _arrive(there, source, target, settings)
        elif back is not None:
            _leave(back, source, target, settings)
        else:
            raise UsageError(f"neither {source} nor {target} is a file of another library")
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename}: there is no such file") from error
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        mapping=mapping.read(args.mapping),
        layout=args.layout,
        shapes=None if args.shapes is None else sources.read(args.shapes),
        dtype=args.dtype,
        storage=args.storage,
        landing=args.landing,
        like=args.like,
        step=args.step,
    )


def _arrive(side: ModuleType, source: Path, target: Path, settings: Settings) -> None:
    arrived = side.arrive(source, settings)
    checkpoint.write(target, arrived.opt, arrived.steps, Run(arrived.params, arrived.state))
    print(f"{arrived.report}\n\nafter {arrived.steps:,} steps, to be gone on with by\n")
    print(f"{arrived.recipe}\n\nwritten: {target}")


def _leave(side: ModuleType, source: Path, target: Path, settings: Settings) -> None:
    step, report = side.leave(source, target, settings)
    print(f"{report}\n\nof checkpoint {step:,}\n\nwritten: {target}")
