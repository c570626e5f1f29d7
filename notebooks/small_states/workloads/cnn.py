# SPDX-License-Identifier: Apache-2.0
"""Two convolutions, each with a pool, and a dense layer on handwritten digits."""

from typing import Any

import jax
import jax.numpy as jnp

from notebooks.small_states.workloads import digits
from notebooks.small_states.workloads.workload import Workload, cross_entropy, dense

CHANNELS = (1, 16, 32)


def _init(key: jax.Array) -> dict[str, Any]:
    *keys, last = jax.random.split(key, len(CHANNELS))
    return {
        "convolutions": [
            {"kernel": dense(k, 9 * a, b, 2**0.5), "bias": jnp.zeros(b)}
            for k, a, b in zip(keys, CHANNELS[:-1], CHANNELS[1:], strict=True)
        ],
        "dense": {"kernel": dense(last, 2 * 2 * CHANNELS[-1], 10), "bias": jnp.zeros(10)},
    }


def _loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    images, labels = batch
    x = images[..., None]
    for layer in params["convolutions"]:
        x = jax.nn.relu(_patches(x) @ layer["kernel"] + layer["bias"])
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
    x = x.reshape(len(x), -1)
    return cross_entropy(x @ params["dense"]["kernel"] + params["dense"]["bias"], labels)


def _patches(x: jax.Array) -> jax.Array:
    """The 3 × 3 neighbours of each pixel, so that a convolution is one product of matrices.

    XLA's own convolution is several times slower on a CPU at this size.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, -1)


cnn = Workload(
    name="cnn",
    steps=500,
    rates=(4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2, 0.128, 0.256, 0.512),
    problem=lambda: digits.problem(_init, _loss),
    recipe={"b2": 0.999, "weight_decay": 0.1, "mask": "!*/bias"},
    warmup=0.05,
)
