# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's 1797 handwritten digits, 8 × 8, as batches for the MLP and the CNN."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from notebooks.small_states.workloads.workload import Problem, supervised

BATCH = 64


def problem(init: Callable[[jax.Array], Any], loss: Callable[[Any, Any], jax.Array]) -> Problem:
    """Digits for a model that takes images of shape (batch, 8, 8)."""
    train, validation = _split()
    images, labels = (jnp.asarray(x) for x in train)

    def batch(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = jax.random.randint(key, (BATCH,), 0, len(labels))
        return images[chosen], labels[chosen]

    return supervised(init, batch, loss, *(_whole(part) for part in (train, validation)))


@functools.cache
def _split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Every fifth digit is held out."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images = (table.images / 8 - 1).astype(np.float32)
    labels = table.target.astype(np.int32)
    held_out = np.arange(len(labels)) % 5 == 0
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def _whole(part: tuple[np.ndarray, np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """A stack of one batch that holds everything."""
    return jnp.asarray(part[0])[None], jnp.asarray(part[1])[None]
