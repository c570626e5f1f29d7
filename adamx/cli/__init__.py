# SPDX-License-Identifier: Apache-2.0
"""The command line of `python -m adamx`.

A subcommand is a module with a docstring, `add_arguments(parser)` and `run(args) -> exit code`, and
one row in `COMMANDS`. Its docstring is its help text. If it raises `UsageError`, the message goes
to stderr as one sentence and the exit code is 2, or 1 if the disk is full.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TextIO

import adamx
from adamx.cli import bench, compare, convert_state, disk, explain, export, plan, report, train
from adamx.cli.flags import Parser, UsageError

COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "compare": compare,
    "bench": bench,
    "plan": plan,
    "report": report,
    "convert-state": convert_state,
    "explain": explain,
    "run-exported": export,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (by default that of the process) and returns its exit code."""
    args = build_parser().parse_args(argv)
    if args.command is None:
        print(greeting())
        return 0
    try:
        code = args.call(args)
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"python -m adamx {args.command}: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
            return 141  # as of the signal that ends other programs then
        if not disk.is_full(error) and not isinstance(error, PermissionError):
            raise
        what = f"cannot use {error.filename or 'a file'}: {disk.why(error)}"
        print(f"python -m adamx {args.command}: {what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"python -m adamx {args.command}: interrupted", file=sys.stderr)
        return 130


def _has_no_reader(stream: TextIO) -> bool:
    """Whether the other end of a pipe is closed, as by `| head`; what is left is not written."""
    try:
        stream.write("\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line, with one subparser per row of `COMMANDS`."""
    parser = Parser(prog="python -m adamx", description="The Adam family for JAX.")
    parser.add_argument("--version", action="version", version=f"adamx {adamx.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for name, module in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=_summary(module), description=module.__doc__)
        module.add_arguments(subparser)
        subparser.set_defaults(call=module.run)
    return parser


def greeting() -> str:
    """What the command line can do, for those who type nothing: ten lines of 80 columns."""
    width = max(map(len, COMMANDS)) + 4
    lines = [f"adamx {adamx.__version__}: the Adam family for JAX. `python -m adamx` can"]
    for name, module in COMMANDS.items():
        lines.append(f"  {name:{width - 2}}{_beginning(_summary(module), 80 - width)}")
    return "\n".join([*lines, "Begin with `train`. Each has an example in its --help."])


def _beginning(sentence: str, width: int) -> str:
    """As many clauses of the sentence as fit."""
    whole = sentence.rstrip(".")
    ends = [i for i in range(len(whole)) if whole[i] in ",:"]
    fitting = [whole[:i] for i in [*ends, len(whole)] if i <= width]
    text = fitting[-1] if fitting else whole
    return text[0].lower() + text[1:]


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0]
