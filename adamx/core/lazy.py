# SPDX-License-Identifier: Apache-2.0
"""A package's names that are imported when they are first used.

Type checkers do not see them: the package imports them once more under `TYPE_CHECKING`.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attributes(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, from each name to the module in it that has it; the
    name of a module stands for the module itself.

    Example:
      >>> found, _ = attributes("adamx", {"health": "health", "Checkpoints": "checkpoints"})
      >>> found("health").__name__, found("Checkpoints").__name__
      ('adamx.health', 'Checkpoints')
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{homes[name]}")
        found = module if name == homes[name] else getattr(module, name)
        setattr(sys.modules[package], name, found)  # the next use does not come here
        return found

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return getattr_, dir_
