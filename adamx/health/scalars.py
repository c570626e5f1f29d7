# SPDX-License-Identifier: Apache-2.0
"""Scalars of a state, from wherever it lies."""

from typing import Any

import jax
import numpy as np


def first(x: Any) -> Any:
    """A scalar as NumPy's; of a stack of them, as `pmap` has it, the first."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        x = x.addressable_shards[0].data
    return np.asarray(x).reshape(-1)[0]
