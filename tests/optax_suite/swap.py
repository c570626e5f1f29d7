# SPDX-License-Identifier: Apache-2.0
"""Our functions in the place of Optax's, in every Optax module that holds them, for a while.

Optax's tests reach one function by many roads (`optax.adam`, `optax._src.alias.adam` …), so places
are found by identity. State classes are the same on both sides and stay.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import optax
import optax.contrib

import adamx

Pairs = dict[str, tuple[Callable, Callable]]


def _shared() -> Pairs:
    """Optax's function and ours, for each public name that both have."""
    pairs = {}
    for name, ours in vars(adamx).items():
        theirs = getattr(optax, name, None) or getattr(optax.contrib, name, None)
        functions = callable(ours) and callable(theirs) and not isinstance(ours, type)
        if functions and ours is not theirs and not name.startswith("_"):
            pairs[name] = (theirs, ours)
    return pairs


SHARED = _shared()


@contextlib.contextmanager
def swapped(pairs: Pairs = SHARED) -> Iterator[None]:
    """Within it, whoever asks an Optax module for one of the names gets ours."""
    _put({id(theirs): ours for theirs, ours in pairs.values()})
    try:
        yield
    finally:
        _put({id(ours): theirs for theirs, ours in pairs.values()})


def _put(new: dict[int, Any]) -> None:
    """Exchanges values by identity, in every module of Optax that has been imported by now."""
    for key, module in list(sys.modules.items()):
        if key.partition(".")[0] == "optax":
            for name, value in list(vars(module).items()):
                if id(value) in new:
                    setattr(module, name, new[id(value)])
