# SPDX-License-Identifier: Apache-2.0
"""Timing on a shared machine: short samples, taken in turn, compared in pairs."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

SAMPLE_SECONDS = 0.05
T = TypeVar("T")


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds that one call took, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def calls_per_sample(call: Callable[[], object]) -> int:
    """How many calls make a sample long enough for the clock; calls twice, the first to warm up."""
    call()
    seconds, _ = timed(call)
    return max(1, min(200, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-6))))


def in_turn(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds per call of every contestant, `repeats` samples each.

    Each round takes one sample of every contestant, so that whatever slows the machine for a while
    slows all of them. The order is reversed from one round to the next.
    """
    counts = {name: calls_per_sample(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            samples[name].append(_sample(calls[name], counts[name]))
    return samples


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours divided by theirs, round by round."""
    return [a / b if b else math.nan for a, b in zip(ours, theirs, strict=True)]


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.percentile(samples, (25, 50, 75))
    return float(low), float(middle), float(high)


def _sample(call: Callable[[], object], count: int) -> float:
    seconds, _ = timed(lambda: [call() for _ in range(count)])
    return seconds / count
