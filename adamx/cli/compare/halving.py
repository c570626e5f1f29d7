# SPDX-License-Identifier: Apache-2.0
"""Successive halving: many settings for a few steps, the better half for twice as many, and so on.

Jamieson & Talwalkar, 2016, arXiv 1502.07943.
"""

from typing import NamedTuple

from adamx.cli.flags import UsageError


class Rung(NamedTuple):
    """A stretch of training: how many points of the grid are in it, and at which step it ends."""

    points: int
    until: int


def rungs_of(points: int, steps: int, halvings: int) -> list[Rung]:
    """The rungs, of about equal cost; the last ends after all steps.

    Example:
      >>> rungs_of(points=20, steps=200, halvings=2)
      [Rung(points=20, until=50), Rung(points=10, until=100), Rung(points=5, until=200)]
    """
    for what, most in (("points on the grid", points), ("steps", steps)):
        if 2**halvings > most:
            raise UsageError(
                f"--halvings {halvings} needs at least {2**halvings} {what}, got {most}"
            )
    return [
        Rung(-(-points // 2**i), round(steps / 2 ** (halvings - i))) for i in range(halvings + 1)
    ]


def cost(rungs: list[Rung]) -> int:
    """The number of steps that one seed takes in all."""
    starts = [0, *(rung.until for rung in rungs[:-1])]
    return sum(
        rung.points * (rung.until - start) for rung, start in zip(rungs, starts, strict=True)
    )
