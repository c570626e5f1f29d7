# SPDX-License-Identifier: Apache-2.0
"""The form of a training task."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import optax


class Task(NamedTuple):
    """Data and a model, ready to train; every random choice in it comes from one seed."""

    title: str
    """One line for people: data, model, sizes."""
    params: optax.Params
    """Where the training starts."""
    loss: Callable[[Any, Any], jax.Array]
    """`loss(params, batch)`, a scalar."""
    batches: Callable[[], Iterator[Any]]
    """Starts the endless sequence of batches, the same one at every call."""
    scores: Callable[[Any], dict[str, jax.Array]]
    """Final figures by name; `"loss"` and `"test accuracy"` are always among them."""
