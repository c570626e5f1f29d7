# SPDX-License-Identifier: Apache-2.0
"""The swap itself: complete while it lasts, and leaving nothing behind."""

import sys
from typing import Any

import optax
import pytest

import adamx

from .swap import SHARED, swapped


def _held_by_optax() -> list[Any]:
    modules = [m for key, m in list(sys.modules.items()) if key.partition(".")[0] == "optax"]
    return [value for module in modules for value in list(vars(module).values())]


def _among(values: list[Any], functions: list[Any]) -> list[Any]:
    return [f for f in functions if any(value is f for value in values)]


THEIRS = [theirs for theirs, _ in SHARED.values()]
OURS = [ours for _, ours in SHARED.values()]


def test_within_the_swap_optax_holds_our_functions_only() -> None:
    with swapped():
        assert optax._src.alias.adam is optax.adam is adamx.adam
        assert optax.contrib._adopt.adopt is optax.contrib.adopt is adamx.adopt
        held = _held_by_optax()
    assert _among(held, OURS) == OURS
    assert _among(held, THEIRS) == []


def test_after_the_swap_optax_is_itself() -> None:
    before = {(id(m), k): id(v) for m in list(sys.modules.values()) for k, v in _own(m)}

    with pytest.raises(KeyError, match="inside"), swapped():
        raise KeyError("inside")
    assert {(id(m), k): id(v) for m in list(sys.modules.values()) for k, v in _own(m)} == before
    assert _among(_held_by_optax(), OURS) == []


def _own(module: Any) -> list[tuple[str, Any]]:
    return list(vars(module).items()) if getattr(module, "__name__", "").startswith("optax") else []


def test_state_classes_are_never_swapped() -> None:
    assert not any(isinstance(f, type) for f in THEIRS + OURS)
