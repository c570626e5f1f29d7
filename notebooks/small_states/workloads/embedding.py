# SPDX-License-Identifier: Apache-2.0
"""The next word of the standard library's source, from an embedding with rarely seen rows.

Words have Zipf's frequencies, and a gradient reaches only the rows of the words in a batch: most
rows of the embedding see none in most steps, and some are first seen late.
"""

import collections
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from notebooks.small_states.workloads import source
from notebooks.small_states.workloads.workload import (
    Problem,
    Workload,
    cross_entropy,
    dense,
    supervised,
)

WORDS, WIDTH, CONTEXT, BATCH = 4096, 32, 3, 128
MEASURED = 8  # batches of eight times the size


def _problem() -> Problem:
    text, held_out = _words()
    on_device = jnp.asarray(text)

    def batch(key: jax.Array) -> jax.Array:
        starts = jax.random.randint(key, (BATCH,), 0, len(text) - CONTEXT)
        return on_device[starts[:, None] + jnp.arange(CONTEXT + 1)]

    return supervised(_init, batch, _loss, _fixed(text), _fixed(held_out))


def _words() -> tuple[np.ndarray, np.ndarray]:
    """Both texts as indices of words by frequency; 0 stands for all rarer words."""
    train, held_out = (re.findall(rb"\w+|[^\w\s]", part) for part in source.split())
    common = collections.Counter(train).most_common(WORDS - 1)
    index = {word: i for i, (word, _) in enumerate(common, 1)}
    return tuple(
        np.asarray([index.get(word, 0) for word in part], np.int32) for part in (train, held_out)
    )


def _fixed(text: np.ndarray) -> jax.Array:
    """The same windows for every run, spread evenly over a text."""
    starts = np.linspace(0, len(text) - CONTEXT - 1, MEASURED * 8 * BATCH).astype(np.int64)
    windows = text[starts[:, None] + np.arange(CONTEXT + 1)]
    return jnp.asarray(windows.reshape(MEASURED, 8 * BATCH, CONTEXT + 1))


def _init(key: jax.Array) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 3)
    return {
        "embedding": 0.1 * jax.random.normal(keys[0], (WORDS, WIDTH)),
        "hidden": dense(keys[1], CONTEXT * WIDTH, WIDTH, 2**0.5),
        "head": dense(keys[2], WIDTH, WORDS),
        "bias": jnp.zeros(WORDS),
    }


def _loss(params: Any, windows: jax.Array) -> jax.Array:
    x = params["embedding"][windows[:, :-1]].reshape(len(windows), -1)
    x = jax.nn.relu(x @ params["hidden"])
    return cross_entropy(x @ params["head"] + params["bias"], windows[:, -1])


embedding = Workload(
    name="embedding",
    steps=1000,
    rates=(2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.128),
    problem=_problem,
    recipe={"b2": 0.999, "weight_decay": 0.01, "mask": "!bias"},
    warmup=0.05,
)
