# SPDX-License-Identifier: Apache-2.0
"""Errors that list every problem at once, with the nearest names of what was not found."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})


class Problems:
    """What is wrong with a request, collected until all of it is known.

    Example:
      >>> problems = Problems("from_torch")
      >>> problems.add(f"fc3.weight has no partner; the nearest are {nearest('fc3', ['fc1', 'a'])}")
      >>> problems.add("fc1.bias: 7 steps, the others have 8")
      >>> problems.check()
      Traceback (most recent call last):
      ...
      ValueError: from_torch: 2 problems
        fc3.weight has no partner; the nearest are fc1
        fc1.bias: 7 steps, the others have 8
    """

    def __init__(self, who: str):
        self._who = who
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, *problems: str) -> None:
        """Adds sentences, without a full stop, that name the leaf, the rule and the value."""
        self._found += problems

    def check(self) -> None:
        """Raises a `ValueError` with all problems, if there are any."""
        if len(self._found) == 1:
            raise ValueError(f"{self._who}: {self._found[0]}")
        if self._found:
            lines = "".join(f"\n  {problem}" for problem in self._found)
            raise ValueError(f"{self._who}: {len(self._found)} problems{lines}")


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The names most like `name`, best first; "none" if nothing is like it.

    Example:
      >>> nearest("weight_decai", ["lr", "weight_decay", "betas"], most=1)
      'weight_decay'
    """
    found = difflib.get_close_matches(name, list(known), n=most, cutoff=0.3)
    return ", ".join(found) or "none"


def check_arguments(
    who: str, given: Mapping[str, Any], known: Iterable[str], synonyms: Mapping[str, str] = _NONE
) -> None:
    """Raises a `TypeError` that lists every given argument that is not known. `synonyms` go from
    names of other libraries to known ones.

    Example:
      >>> check_arguments("torch.adam", {"weight_decai": 0.1}, ["lr", "weight_decay"])
      Traceback (most recent call last):
      ...
      TypeError: torch.adam has no argument `weight_decai`; the nearest is `weight_decay`
    """
    known = list(known)
    said = []
    for name in given:
        if name in known:
            continue
        like = synonyms.get(name) or nearest(name, known, most=1)
        hint = f"the nearest is `{like}`" if like != "none" else f"it has {', '.join(known)}"
        said.append(f"no argument `{name}`; {hint}")
    if said:
        raise TypeError(f"{who} has {'; it has '.join(said)}")
