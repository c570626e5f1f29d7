# SPDX-License-Identifier: Apache-2.0
"""Products as parameters of a test: some of them by default, the rest with `-m slow`."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def rest_slow(names: str, all_of_them: Iterable[tuple[Any, ...]], first: Iterable[tuple[Any, ...]]):
    """A mark with a case for each row, of which those that are not among `first` are slow."""
    kept, slow = list(first), pytest.mark.slow
    rows = [pytest.param(*row, marks=() if row in kept else slow) for row in all_of_them]
    return pytest.mark.parametrize(names, rows)


def values_in_turn(names: str, *columns: Iterable[Any]):
    """A mark with all combinations, of which as few are fast as have each value of each column."""
    columns = [list(column) for column in columns]
    longest = max(map(len, columns))
    first = {  # each column comes around at another pace
        tuple(c[(i + k * (i // len(c))) % len(c)] for k, c in enumerate(columns))
        for i in range(longest)
    }
    return rest_slow(names, product(*columns), first)


def some_slow(name: str, values: Iterable[Any], first: Iterable[Any]):
    """A mark with a case for each value, of which those that are not among `first` are slow."""
    return rest_slow(name, [(value,) for value in values], [(value,) for value in first])


HOWS = ("jit", "shard_map", "pmap")
WAYS = list(product(HOWS, (False, True)))
ways = pytest.mark.parametrize("how, zero", WAYS)
IN_TURN = [("jit", False), ("shard_map", True), ("pmap", True)]
ways_in_turn = rest_slow("how, zero", WAYS, IN_TURN)
