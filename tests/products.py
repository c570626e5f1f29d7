# SPDX-License-Identifier: Apache-2.0
"""Products as parameters of a test: some of them by default, the rest with `-m slow`."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def rest_slow(names: str, all_of_them: Iterable[tuple[Any, ...]], first: Iterable[tuple[Any, ...]]):
    """A mark with a case for each row, of which those that are not among `first` are slow."""
    kept, slow = set(first), pytest.mark.slow
    rows = [pytest.param(*row, marks=() if row in kept else slow) for row in all_of_them]
    return pytest.mark.parametrize(names, rows)


HOWS = ("jit", "shard_map", "pmap")
WAYS = list(product(HOWS, (False, True)))
ways = pytest.mark.parametrize("how, zero", WAYS)
IN_TURN = [("jit", False), ("shard_map", True), ("pmap", True)]
ways_in_turn = rest_slow("how, zero", WAYS, IN_TURN)
