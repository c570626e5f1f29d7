# SPDX-License-Identifier: Apache-2.0
"""The settings at which one optimizer is tried: a grid over the axes that it has."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Axes = Mapping[str, np.ndarray]


class Grid(NamedTuple):
    """All combinations of the rising values of some arguments, numbered row by row."""

    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values on each axis."""
        return tuple(map(len, self.axes.values()))

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The value of each setting at each point."""
        arrays = np.meshgrid(*self.axes.values(), indexing="ij")
        return {name: x.ravel() for name, x in zip(self.axes, arrays, strict=True)}

    def neighbours(self, point: int) -> dict[str, tuple[int | None, int | None]]:
        """The points below and above on each axis that has more than one value."""
        at, found = [int(i) for i in np.unravel_index(point, self.shape)], {}
        for i, name in enumerate(self.axes):
            if self.shape[i] > 1:
                found[name] = tuple(self._number(at, i, at[i] + step) for step in (-1, 1))
        return found

    def edges(self, point: int) -> dict[str, str]:
        """The axes on whose edge a point lies, and which: the best may lie beyond. Nothing lies
        below 0."""
        found = {}
        for name, (below, above) in self.neighbours(point).items():
            if below is None and self.points[name][point] != 0:
                found[name] = "lower"
            elif above is None:
                found[name] = "upper"
        return found

    def _number(self, at: list[int], axis: int, to: int) -> int | None:
        if not 0 <= to < self.shape[axis]:
            return None
        return int(np.ravel_multi_index([*at[:axis], to, *at[axis + 1 :]], self.shape))


def grid_of(build: Callable[..., Any], rates: np.ndarray, others: Axes) -> Grid:
    """The grid of an optimizer, of as many points for each of them.

    Axes that it has no argument for are left out. Its share of the runs goes to more rates over the
    same range.

    Example:
      >>> def sgd(learning_rate): ...
      >>> grid_of(sgd, np.array([0.01, 1.0]), {"b2": np.array([0.9, 0.95])}).axes
      {'learning_rate': array([0.01..., 0.0464..., 0.2154..., 1. ])}
    """
    known = inspect.signature(build).parameters
    own = {name: values for name, values in others.items() if name in known}
    share = math.prod(map(len, others.values())) // math.prod(map(len, own.values()))
    return Grid({"learning_rate": _finer(rates, share), **own})


def _finer(rates: np.ndarray, share: int) -> np.ndarray:
    """`share` times as many rates, evenly between the given ones in their logarithm."""
    if share == 1 or len(rates) == 1:
        return rates
    forth, back = (np.log, np.exp) if rates.min() > 0 else (np.copy, np.copy)
    places = np.linspace(0, len(rates) - 1, share * len(rates))
    return back(np.interp(places, np.arange(len(rates)), forth(rates)))
