# SPDX-License-Identifier: Apache-2.0
"""Checks the settings that a run's folder keeps, as they may have been changed by hand."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adamx.cli import folder
from adamx.cli.flags import UsageError


def check(
    kept: dict[str, Any], fields: Mapping[str, dataclasses.Field[Any]], root: Path
) -> dict[str, Any]:
    """Returns `kept`; raises `UsageError` where a value cannot be that of its setting."""
    for name, value in kept.items():
        choices = fields[name].metadata["flag"].get("choices")
        is_choice = choices is None or value is None or value in choices
        if not (_fits(value, fields[name].type) and is_choice):
            raise UsageError(f"{root / folder.CONFIG}: {name} cannot be {value!r}")
    return kept


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, or of one of a union; integers are floats, too."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return type(value) in kinds or (type(value) is int and float in kinds)
