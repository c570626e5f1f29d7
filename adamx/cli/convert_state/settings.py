# SPDX-License-Identifier: Apache-2.0
"""What the flags say of a conversion, and what comes of it: shared by all sides."""

from typing import Any, NamedTuple

from adamx.cli.convert_state.mapping import Mapping
from adamx.interop.report import Report


class Settings(NamedTuple):
    """What the flags say.

    Attributes:
      mapping: the mapping file.
      layout: how modules here name and lay out their parameters.
      shapes: a tree of shapes, or None to make one up from the names there.
      dtype: of the parameters here; None for that of the other side.
      storage, landing: of the optimizer here.
      like: the other library's file that the way back follows.
      step: the checkpoint of the way back; None for the latest.
    """

    mapping: Mapping
    layout: str
    shapes: Any
    dtype: str | None
    storage: str
    landing: str
    like: str | None
    step: int | None


class Arrived(NamedTuple):
    """A run that came from another library.

    Attributes:
      params, opt, state: the run.
      steps: how many it has made.
      report: what went where.
      recipe: the optimizer, as a program builds it.
    """

    params: Any
    opt: Any
    state: Any
    steps: int
    report: Report
    recipe: str
