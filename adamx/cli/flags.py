# SPDX-License-Identifier: Apache-2.0
"""What every subcommand needs to read its flags: the parser, the types, and how to refuse."""

import argparse
import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

PICTURES = (".png", ".svg", ".pdf")


class UsageError(Exception):
    """A request that cannot be met; its message is the one sentence that the user gets."""


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers a wrong flag in one line and keeps the docstring's lines."""

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line and exit code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of a flag that takes an integer from `least` to `most`."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"must be a whole number, {bounds}, got {text!r}")
        return value

    return parse


def non_negative(text: str) -> float:
    """The type of a flag that takes a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text!r}")
    return value


def numbers(text: str) -> list[float]:
    """The type of a flag that takes some of them, with commas between; they come sorted."""
    return sorted({non_negative(part) for part in text.split(",")})


def names_among(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of a flag that takes names from `choices`, separated by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in choices:
                known = ", ".join(choices)
                raise argparse.ArgumentTypeError(f"{name!r} is not one of: {known}")
        return list(dict.fromkeys(names))

    return parse


def add_names(
    parser: argparse.ArgumentParser, flag: str, choices: Sequence[str], what: str
) -> None:
    """Declares a flag that takes some of `choices`, all of them by default."""
    parser.add_argument(
        flag,
        type=names_among(choices),
        default=list(choices),
        metavar="NAMES",
        help=f"{what}, with commas between (default: {', '.join(choices)})",
    )


def check_writable(path: str) -> None:
    """Refuses a file in a folder that is not there, before the work that is to go into it."""
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no such folder")


def check_picture(flag: str, path: str) -> None:
    """Refuses what is no picture, or cannot be written, or drawn."""
    optional_import("matplotlib.figure", "matplotlib")
    if Path(path).suffix not in PICTURES:
        raise UsageError(f"{flag} must end in {', '.join(PICTURES)}, got {path!r}")
    check_writable(path)


def optional_import(module: str, package: str) -> ModuleType:
    """Imports `module`, or refuses with the command that installs the `package` it is part of."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f'{package} is not installed; run: pip install -e ".[demo]"') from error
