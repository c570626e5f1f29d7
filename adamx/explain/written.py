# SPDX-License-Identifier: Apache-2.0
"""Optimizers written as text: `torch.AdamW`, `optax.adamw(1e-3, weight_decay=0.1)`.

Only names and literals are read; nothing of a text is ever run.
"""

import ast
import dataclasses
from typing import Any

from adamx.explain.libraries import subject
from adamx.explain.subject import Subject


def read(text: str) -> Subject:
    """The optimizer that a text describes.

    Example:
      >>> read("torch.AdamW(lr=3e-4)").value("learning_rate")
      0.0003
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        name = _dotted(node.func if isinstance(node, ast.Call) else node)
        args = tuple(_literal(x) for x in call.args) if call else ()
        kwargs = {str(k.arg): _literal(k.value) for k in call.keywords} if call else {}
        if call and any(k.arg is None for k in call.keywords):
            raise ValueError("it has **")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{text!r} is not a name such as `torch.AdamW`, or a call of one with numbers, such as "
            "`optax.adamw(1e-3, weight_decay=0.1)`"
        ) from error
    if call and len(kwargs) < len(call.keywords):
        raise ValueError(f"{text!r} has an argument twice")
    found = subject(name, args, **kwargs)
    if not call or not (args or kwargs):
        return found
    said = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
    return dataclasses.replace(found, name=f"{found.name}({', '.join(said)})")


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ValueError("not a name")


def _literal(node: ast.AST) -> Any:
    return ast.literal_eval(node)  # pyright: ignore[reportArgumentType]
