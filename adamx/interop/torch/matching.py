# SPDX-License-Identifier: Apache-2.0
"""Which of torch's arrays each of our leaves comes from, and how it lies there."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from adamx.core import paths
from adamx.interop.layouts import Move
from adamx.interop.names import Problems, nearest
from adamx.interop.torch.conventions import CONVENTIONS, Candidate, candidates
from adamx.interop.torch.moves import KINDS, Shape, complaint, kind_of, move_of
from adamx.interop.torch.wrappers import find

Name = str | Sequence[str]
Names = Mapping[str, Name] | Callable[[str], Name | None] | None
Layouts = Mapping[str, str | Move] | None


class Match(NamedTuple):
    """One of our leaves and what it is made of.

    Attributes:
      path: the leaf's name.
      sources: torch's names.
      move: makes the leaf of these arrays.
      kind: how that is called.
    """

    path: str
    sources: tuple[str, ...]
    move: Move
    kind: str


def match(
    leaves: Mapping[str, Shape],
    theirs: Mapping[str, Shape],
    layout: str,
    names: Names,
    layouts: Layouts,
    problems: Problems,
) -> tuple[list[Match], set[str]]:
    """A match for each of our leaves, and a problem for each that has none.

    Also returns all of torch's names that a leaf asks for, whether they fit or not.
    """
    if layout not in CONVENTIONS:
        known = ", ".join(map(repr, CONVENTIONS))
        raise ValueError(f"`layout` must be one of {known}, got {layout!r}")
    table = {} if names is None or callable(names) else names
    _check_keys(leaves, table, layouts or {}, problems)
    found, used = [], set()
    for path, shape in leaves.items():
        given = names(path) if callable(names) else table.get(path)
        chosen = _chosen(path, given, theirs, layout, table, problems)
        if chosen is None:
            continue
        used |= {name for name, _ in chosen}
        asked = next((x for p, x in (layouts or {}).items() if paths.matches(p, path)), None)
        shapes = [theirs[name] for name, _ in chosen]
        if callable(asked):
            move, kind = asked, f"function {getattr(asked, '__name__', asked)}"
        else:
            kind = kind_of(path, shapes, layout) if asked is None else asked
            if kind not in KINDS:
                known = ", ".join(map(repr, KINDS))
                problems.add(
                    f"{path}: `layouts` must be one of {known} or a function, got {kind!r}"
                )
                continue
            move, third = move_of(kind, layout, shape, chosen[0].third), chosen[0].third
            kind = kind if third is None else f"{kind}, third {third + 1} of 3"
        if wrong := complaint(move, kind, shapes, shape):
            problems.add(f"{path}: {' + '.join(name for name, _ in chosen)} is {wrong}")
            continue
        found.append(Match(path, tuple(name for name, _ in chosen), move, kind))
    return found, used


def _chosen(
    path: str,
    given: Name | None,
    theirs: Mapping[str, Shape],
    layout: str,
    table: Mapping[str, Name],
    problems: Problems,
) -> list[Candidate] | None:
    """torch's names of a leaf, one unless `given` has several; None where it has none."""
    if given is None:
        names = candidates(_renamed(path, table), layout)
        options = [c._replace(name=find(c.name, theirs)) for c in names]
        chosen = [c for c in options if c.name in theirs][:1]
        missing = [] if chosen else [" or ".join(c.name for c in options)]
    else:
        several = [given] if isinstance(given, str) else given
        options = [Candidate(find(name, theirs)) for name in several]
        chosen = [c for c in options if c.name in theirs]
        missing = [c.name for c in options if c.name not in theirs]
    for name in missing:
        like = nearest(options[-1].name if options else path, theirs)
        problems.add(f"{path}: torch has no {name}; the nearest are {like}")
    return None if missing else chosen


def _renamed(path: str, table: Mapping[str, Name]) -> str:
    """A path with torch's name for the longest part of it that the table names."""
    words = path.split("/")
    for end in range(len(words) - 1, 0, -1):
        module = table.get("/".join(words[:end]))
        if isinstance(module, str):
            return "/".join([*filter(None, module.split(".")), *words[end:]])
    return path


def _check_keys(
    leaves: Mapping[str, Shape], names: Mapping, layouts: Mapping, problems: Problems
) -> None:
    words = [path.split("/") for path in leaves]
    known = {"/".join(path[:end]) for path in words for end in range(1, len(path) + 1)}
    for key in names:
        if key not in known:
            like = nearest(key, sorted(known))
            problems.add(f"`names`: there is no leaf or module {key!r}; the nearest are {like}")
    for pattern in layouts:
        if not any(paths.matches(pattern, path) for path in leaves):
            like = nearest(pattern, leaves)
            problems.add(f"`layouts`: no leaf matches {pattern!r}; the nearest are {like}")
