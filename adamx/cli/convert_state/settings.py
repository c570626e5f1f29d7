# SPDX-License-Identifier: Apache-2.0
"""What the flags say of a conversion, and what comes of it: shared by all sides."""

from typing import Any, NamedTuple

from adamx.cli.convert_state.mapping import Mapping
from adamx.interop.report import Report


class Settings(NamedTuple):
    """What the flags say, which `command.py` explains; None where they say nothing."""

    mapping: Mapping
    layout: str
    shapes: Any
    dtype: str | None
    storage: str
    landing: str
    like: str | None
    step: int | None


class Arrived(NamedTuple):
    """A run that came from another library; `recipe` is its optimizer as a program builds it."""

    params: Any
    opt: Any
    state: Any
    steps: int
    report: Report
    recipe: str
