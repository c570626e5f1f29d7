# SPDX-License-Identifier: Apache-2.0
"""Docstrings as `help()` shows them: with the arguments that recipes share, and in Markdown."""

import importlib
import inspect
import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Reads the docstring of each function from the imported package, and turns its mark-up."""

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        self._turn(func)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        self._turn(cls)

    def on_module(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        self._turn(mod)

    def _turn(self, found: griffe.Object) -> None:
        if found.docstring is not None:
            found.docstring.value = markdown(_at_run_time(found) or found.docstring.value)


def markdown(text: str) -> str:
    """A docstring's links and formulas in Markdown, its sections named as Griffe knows them."""
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.M)
    text = re.sub(r"`([^`<]+?)\s*<(https?://[^>]+)>`_+", r"[\1](\2)", text)
    text = re.sub(r":math:`([^`]+)`", r"\\(\1\\)", text)
    return re.sub(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*)?$)*)", _formula, text, flags=re.M)


def _formula(found: re.Match[str]) -> str:
    margin, formula = found[1], " ".join(found[2].split())
    return f"\n{margin}$$ {formula} $$\n"


def _at_run_time(found: griffe.Object) -> str | None:
    """The docstring after the decorators have run, which complete those of recipes."""
    if not found.is_function or not found.module.path.startswith("adamx.optimizers."):
        return None
    value = getattr(importlib.import_module(found.module.path), found.name, None)
    return inspect.getdoc(value) if value is not None else None
