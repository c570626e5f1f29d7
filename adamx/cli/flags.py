# SPDX-License-Identifier: Apache-2.0
"""Shared by all subcommands: the parser, the types of flags, and the error for bad requests."""

import argparse
import importlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

PICTURES = (".png", ".svg", ".pdf")


class UsageError(Exception):
    """A request that cannot be met; the user sees its message, one sentence."""

    code = 2


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports a wrong flag in one line and keeps the docstring's lines."""

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with code 2."""
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
    """The type of a flag that takes non-negative numbers, separated by commas; returned sorted."""
    return sorted({non_negative(part) for part in text.split(",")})


def names_among(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """The type of a flag that takes names from `choices`, separated by commas."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
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
        help=f"{what}, separated by commas (default: {', '.join(choices)})",
    )


def check_folder(flag: str, path: str) -> None:
    """Raises `UsageError` if there is no such folder."""
    if not Path(path).is_dir():
        raise UsageError(f"{flag} {path}: there is no such folder; name one or leave {flag} out")


def check_writable(path: str) -> None:
    """Raises `UsageError` if nothing can be written there; call it before the work starts."""
    place = Path(path).absolute()
    if not place.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no such folder")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: Permission denied")


def check_file(path: str) -> None:
    """Raises `UsageError` if no file can be written there; call it before the work starts."""
    check_writable(path)
    if Path(path).is_dir():
        raise UsageError(f"cannot write {path}: it is a folder")


def check_picture(flag: str, path: str) -> None:
    """Raises `UsageError` if the path is no picture or not writable, or Matplotlib is missing."""
    optional_import("matplotlib.figure", "matplotlib")
    if Path(path).suffix not in PICTURES:
        raise UsageError(f"{flag} must end in {', '.join(PICTURES)}, got {path!r}")
    check_file(path)


def optional_import(module: str, package: str) -> ModuleType:
    """Imports `module`, or raises `UsageError` with the command that installs its `package`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f'{package} is not installed; run: pip install "adamx[demo]"') from error
