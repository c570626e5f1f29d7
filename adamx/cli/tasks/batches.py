# SPDX-License-Identifier: Apache-2.0
"""Batches by step number: any of them directly, so that a run can resume at any step."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def epochs(data: tuple[Any, ...], batch_size: int, seed: int) -> Callable[[int], Any]:
    """Batches of rows, shuffled anew in each epoch; an incomplete last batch is left out."""
    count = len(data[0])
    each = count // batch_size

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, 1, epoch]).permutation(count)

    def batch(step: int) -> Any:
        epoch, at = divmod(step, each)
        chosen = order(epoch)[at * batch_size : (at + 1) * batch_size]
        return tuple(x[chosen] for x in data)

    return batch
