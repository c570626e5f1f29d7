# SPDX-License-Identifier: Apache-2.0
"""The result of `explain`: fields to compute with, and a text to read."""

import textwrap
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One thing in which two optimizers differ.

    Attributes:
      topic: what it is, such as "epsilon".
      a, b: what it is in either of them.
      words: a sentence about both.
    """

    topic: str
    a: Any
    b: Any
    words: str


class Move(NamedTuple):
    """How far apart two runs of random gradients are, in learning rates of the first.

    Attributes:
      scale: the size of the gradients.
      steps: after how many steps.
      apart: the largest difference of a parameter.
      alike: the same where both have the common hyperparameters of the first; None where they
        cannot be set.
    """

    scale: float
    steps: int
    apart: float
    alike: float | None


class Small(NamedTuple):
    """The size of a step at gradients of 1e-8, in learning rates of each.

    Attributes:
      step: which of many steps at constant gradients.
      a, b: its size.
    """

    step: int
    a: float
    b: float


class Explanation(NamedTuple):
    """What `explain` found; `print` it.

    Attributes:
      a, b: the names of the two.
      differences: what differs, in the order of an optimizer's step.
      moves: how far runs are apart.
      small: steps at gradients of 1e-8.
    """

    a: str
    b: str
    differences: tuple[Difference, ...]
    moves: tuple[Move, ...]
    small: tuple[Small, ...]

    @property
    def same(self) -> bool:
        """Whether both take one path, to 1e-9 of a step."""
        return all(move.apart < 1e-9 for move in self.moves)

    @property
    def same_arithmetic(self) -> bool | None:
        """Whether they would with equal hyperparameters; None where that cannot be tried."""
        alike = [move.alike for move in self.moves]
        return None if None in alike else all(x is not None and x < 1e-9 for x in alike)

    def __str__(self) -> str:
        lines = [f"{self.a} and {self.b}", "", *_wrapped(_verdict(self) + _first(self), "")]
        for i, difference in enumerate(self.differences):
            lines += [""] * (i == 0) + _wrapped(f"{difference.topic}: {difference.words}", "- ")
        lines += ["", "Largest difference of a parameter, in learning rates, at random gradients"]
        header = ("gradients of", "steps", "as they are", "with equal hyperparameters")
        lines += _table(header, map(_row, self.moves))
        lines += ["", "A step at constant gradients of 1e-08, in learning rates"]
        lines += _table(
            ("step", self.a, self.b), ((s, _short(a), _short(b)) for s, a, b in self.small)
        )
        return "\n".join(lines)


def _verdict(found: Explanation) -> str:
    if found.same:
        return "Both take one path, to 1e-9 of a step."
    if found.same_arithmetic is None:
        return "They take different paths."
    if found.same_arithmetic:
        return "Their arithmetic is the same, their hyperparameters are not."
    return "Their arithmetic differs: with equal hyperparameters they still part."


def _first(found: Explanation) -> str:
    """A sentence more where parameter groups were left out."""
    is_first = any("(the first of " in name for name in (found.a, found.b))
    return " Only the first parameter group was looked at." if is_first else ""


def _row(move: Move) -> tuple[str, ...]:
    alike = "unknown" if move.alike is None else _short(move.alike)
    return _short(move.scale), str(move.steps), _short(move.apart), alike


def _short(x: float) -> str:
    return f"{x:.3g}"


def _wrapped(text: str, bullet: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def _table(header: tuple[str, ...], rows: Any) -> list[str]:
    cells = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lined = (zip(row, widths, strict=True) for row in cells)
    return ["  " + "  ".join(f"{cell:>{width}}" for cell, width in row) for row in lined]
