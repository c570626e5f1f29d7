# SPDX-License-Identifier: Apache-2.0
"""Checks of the numbers that knobs are computed from, which are Python's or NumPy's."""

import math
from typing import Any

import numpy as np


def positive(**given: Any) -> None:
    """Raises where a number is not finite or not above zero.

    Example:
      >>> positive(batch=0)
      Traceback (most recent call last):
      ...
      ValueError: `batch` must be a finite number above 0, got 0
    """
    for name, value in given.items():
        if not (_is_number(value) and 0 < value < math.inf):
            raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}")


def finite(**given: Any) -> None:
    """Raises where a number is not finite."""
    for name, value in given.items():
        if not (_is_number(value) and math.isfinite(value)):
            raise ValueError(f"`{name}` must be a finite number, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
