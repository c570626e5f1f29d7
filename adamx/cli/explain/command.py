# SPDX-License-Identifier: Apache-2.0
"""The arguments of `python -m adamx explain`, and what it does."""

import argparse

import adamx
from adamx.cli.flags import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `explain`."""
    parser.add_argument("a", metavar="A", help="an optimizer, such as torch.AdamW")
    parser.add_argument("b", metavar="B", help="another, such as 'optax.adamw(1e-3, b2=0.95)'")


def run(args: argparse.Namespace) -> int:
    """Prints the differences."""
    try:
        print(adamx.explain(args.a, args.b))
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return 0
