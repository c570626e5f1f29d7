# SPDX-License-Identifier: Apache-2.0
"""When to stop, as pure functions of past losses, so that a resumed run decides the same."""

import math
from collections.abc import Sequence

from adamx.core.hyperparameters import check_count


def plateau(losses: Sequence[float], patience: int, least: float = 0.0) -> bool:
    """Whether none of the last `patience` losses beats the best one before by more than `least`.

    Example:
      >>> plateau([3, 2, 1, 1.1, 1.2], patience=2), plateau([3, 2, 1, 1.1, 0.9], patience=2)
      (True, False)
    """
    check_count(patience=patience)
    before, lately = losses[:-patience], losses[-patience:]
    return bool(before) and not any(loss < min(before) - least for loss in lately)


def reached(losses: Sequence[float], target: float) -> bool:
    """Whether the last loss is at the target or below.

    Example:
      >>> reached([3, 2, 1], 1.5), reached([], 1.5)
      (True, False)
    """
    return bool(losses) and losses[-1] <= target


def diverged(losses: Sequence[float], factor: float = 3.0, patience: int = 5) -> bool:
    """Whether the last loss is not finite, or the last few are all above `factor` times the best.

    Example:
      >>> diverged([2.0, 1.0, math.nan]), diverged([2.0, 1.0, 1.5], patience=1)
      (True, False)
      >>> diverged([2.0, 1.0, 4.0, 5.0], patience=2)
      True
    """
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    best = min(loss for loss in losses if math.isfinite(loss))
    limit = best + (factor - 1) * abs(best)
    return len(losses) > patience and all(not loss <= limit for loss in losses[-patience:])
