# SPDX-License-Identifier: Apache-2.0
"""Leaves alike as one row."""

import re
from collections.abc import Callable
from typing import Any

BYTES = ("parameter bytes", "state bytes")
MOST = 12  # rows; beyond that leaves are put together more coarsely


def folded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves alike as one row: with names that differ in numbers alone, or, where that leaves many
    rows, in all but the last word, or however."""
    found = rows
    for label in (_without_numbers, _last_word, lambda name: ""):
        found = _by(rows, label)
        if len(found) <= MOST:
            break
    return found


_ALIKE = ("optimizer", "storage", "landing", "decay", "rate", "dtype")


def _by(rows: list[dict[str, Any]], label: Callable[[str], str]) -> list[dict[str, Any]]:
    alike: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault((label(row["leaves"]), *(row[k] for k in _ALIKE)), []).append(row)
    found = []
    for (told, *_), same in alike.items():
        sums = {k: sum(row[k] for row in same) for k in ("count", *BYTES)}
        names = [row["leaves"] for row in same]
        several = told or f"{names[0]} … {names[-1]}"
        label_ = several if len(same) > 1 else names[0]
        found.append({**same[0], **sums, "leaves": label_, "names": names})
    return found


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _last_word(name: str) -> str:
    return f"*/{name.rpartition('/')[2]}"
