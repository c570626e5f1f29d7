# SPDX-License-Identifier: Apache-2.0
"""The other libraries whose files are converted. Each is a module and a row in `SIDES`.

Such a module has

    holds(path) -> bool                                     # whether a path is one of its files
    arrive(path, settings) -> Arrived                       # from its file to a run of ours
    leave(folder, path, settings) -> (step, Report)         # and back, into a file like another
"""

from pathlib import Path
from types import ModuleType

from adamx.cli.convert_state import keras_side, torch_side

SIDES = (torch_side, keras_side)


def side_of(path: Path) -> ModuleType | None:
    """The module of the library whose file this is, by its name or by what is in the folder."""
    return next((side for side in SIDES if side.holds(path)), None)
