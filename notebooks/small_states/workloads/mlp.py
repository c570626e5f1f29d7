# SPDX-License-Identifier: Apache-2.0
"""A network of three dense layers on handwritten digits."""

from typing import Any

import jax
import jax.numpy as jnp

from notebooks.small_states.workloads import digits
from notebooks.small_states.workloads.workload import Workload, cross_entropy, dense

SIZES = (64, 128, 128, 10)


def _init(key: jax.Array) -> list[dict[str, jax.Array]]:
    keys = jax.random.split(key, len(SIZES) - 1)
    return [
        {"kernel": dense(k, a, b, 2**0.5), "bias": jnp.zeros(b)}
        for k, a, b in zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    ]


def _loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    images, labels = batch
    x = images.reshape(len(images), -1)
    for i, layer in enumerate(params):
        x = (jax.nn.relu(x) if i else x) @ layer["kernel"] + layer["bias"]
    return cross_entropy(x, labels)


mlp = Workload(
    name="mlp",
    steps=1000,
    rates=(4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.128, 0.256, 0.512),
    problem=lambda: digits.problem(_init, _loss),
    recipe={"b2": 0.999, "weight_decay": 0.1, "mask": "!*/bias"},
    warmup=0.05,
)
