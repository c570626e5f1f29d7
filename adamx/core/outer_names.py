# SPDX-License-Identifier: Apache-2.0
"""What a function reads from outside of itself, so that compiled code goes by it.

A mask that reads a name of the module, such as a list of layers, is another mask when the list has
changed. Only plain values count: numbers, strings, and lists, tuples, sets and dictionaries of
them. Arrays and models change at every step, and masks read no more of them than their shapes.
"""

import dis
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any


def outer_values(function: Callable[..., Any]) -> tuple[tuple[str, Hashable], ...]:
    """The plain values of the names that a function of a user's reads, in it and in functions of
    the same module that it calls."""
    is_users = isinstance(function, FunctionType) and not _is_ours(function.__module__)
    return tuple(_read(function, set())) if is_users else ()


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] in ("adamx", "jax", "optax")


def _read(function: FunctionType, seen: set[int]) -> Iterator[tuple[str, Hashable]]:
    seen.add(id(function))
    named = {
        k: function.__globals__[k] for k in _names(function.__code__) & function.__globals__.keys()
    }
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            named[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name, x in sorted(named.items()):
        if (plain := _plain(x)) is not None:
            yield name, plain
        elif _is_beside(x, function) and id(x) not in seen:
            yield from _read(x, seen)


def _is_beside(x: Any, function: FunctionType) -> bool:
    return isinstance(x, FunctionType) and x.__globals__ is function.__globals__


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    """The global names that a function reads, and those defined in it; not those of attributes."""
    read = {x.argval for x in dis.get_instructions(code) if x.opname == "LOAD_GLOBAL"}
    inner = (_names(x) for x in code.co_consts if isinstance(x, CodeType))
    return frozenset(read).union(*inner)


def _plain(x: Any) -> Hashable:
    """A plain value with its type, as 1 and 1.0 are equal; None of anything else."""
    if x is None or isinstance(x, str | bytes | int | float | complex):
        return type(x), x
    if isinstance(x, Mapping):
        items = [(_plain(k), _plain(v)) for k, v in x.items()]
        return None if any(None in pair for pair in items) else (type(x), tuple(items))
    if isinstance(x, list | tuple | set | frozenset):
        held = [_plain(item) for item in x]
        if any(item is None for item in held):
            return None
        return type(x), frozenset(held) if isinstance(x, set | frozenset) else tuple(held)
    return None
