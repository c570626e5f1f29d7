# SPDX-License-Identifier: Apache-2.0
"""Reads scalars of a state, whichever devices hold it."""

from typing import Any

import jax
import numpy as np


def first(x: Any) -> Any:
    """A scalar as a NumPy value; of a stack, as under `pmap`, the first one."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        x = x.addressable_shards[0].data
    return np.asarray(x).reshape(-1)[0]
