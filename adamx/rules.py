# SPDX-License-Identifier: Apache-2.0
"""The rules by themselves, for `adamx.scale_by`: the `rule` of every file in `optimizers/`.

Example:
  >>> import adamx
  >>> adamx.rules.adam(b1=0.95).moments
  {'mu': 'signed', 'nu': 'squared'}
"""

import importlib
from collections.abc import Callable

from adamx.core.rule import Kind, Rule

__all__ = ["Kind", "Rule"]

_FILES = {"belief": "adabelief"}  # as `scale_by_belief`, Optax's name


def __getattr__(name: str) -> Callable[..., Rule]:
    path = f"adamx.optimizers.{_FILES.get(name, name)}"
    try:
        rule = importlib.import_module(path).rule
    except (ModuleNotFoundError, AttributeError):
        rule = None
    if rule is None or rule.__module__ != path:  # one that a recipe takes from another file
        raise AttributeError(f"module 'adamx.rules' has no rule {name!r}")
    return rule
