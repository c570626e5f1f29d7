# SPDX-License-Identifier: Apache-2.0
"""A byte-level decoder-only transformer on the standard library's source."""

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

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 96, 4, 3, 64, 12
MEASURED = 8  # batches of four times the size


def _problem() -> Problem:
    text, held_out = (np.frombuffer(part, np.uint8) for part in source.split())
    on_device = jnp.asarray(text)

    def batch(key: jax.Array) -> jax.Array:
        starts = jax.random.randint(key, (BATCH,), 0, len(text) - CONTEXT)
        return on_device[starts[:, None] + jnp.arange(CONTEXT + 1)].astype(jnp.int32)

    return supervised(_init, batch, _loss, _fixed(text), _fixed(held_out))


def _fixed(text: np.ndarray) -> jax.Array:
    """The same windows for every run, spread evenly over a text."""
    count = MEASURED * 4 * BATCH
    starts = np.linspace(0, len(text) - CONTEXT - 1, count).astype(np.int64)
    windows = text[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int32)
    return jnp.asarray(windows.reshape(MEASURED, 4 * BATCH, CONTEXT + 1))


def _init(key: jax.Array) -> dict[str, Any]:
    keys = iter(jax.random.split(key, 3 + 4 * LAYERS))
    deep = (
        2 * LAYERS
    ) ** -0.5  # what is added to the residual stream, so that depth keeps its size
    return {
        "embedding": 0.02 * jax.random.normal(next(keys), (256, WIDTH)),
        "position": 0.02 * jax.random.normal(next(keys), (CONTEXT, WIDTH)),
        "head": dense(next(keys), WIDTH, 256),
        "scale": jnp.ones(WIDTH),
        "blocks": [
            {
                "attention scale": jnp.ones(WIDTH),
                "qkv": dense(next(keys), WIDTH, 3 * WIDTH),
                "mix": dense(next(keys), WIDTH, WIDTH, deep),
                "mlp scale": jnp.ones(WIDTH),
                "up": dense(next(keys), WIDTH, 4 * WIDTH),
                "down": dense(next(keys), 4 * WIDTH, WIDTH, deep),
            }
            for _ in range(LAYERS)
        ],
    }


def _loss(params: Any, windows: jax.Array) -> jax.Array:
    inputs, labels = windows[:, :-1], windows[:, 1:]
    x = params["embedding"][inputs] + params["position"]
    for block in params["blocks"]:
        x = x + _attention(block, _norm(x, block["attention scale"]))
        hidden = jax.nn.relu(_norm(x, block["mlp scale"]) @ block["up"])
        x = x + jnp.square(hidden) @ block["down"]
    return cross_entropy(_norm(x, params["scale"]) @ params["head"], labels)


def _attention(block: Any, x: jax.Array) -> jax.Array:
    length = x.shape[-2]
    parts = (x @ block["qkv"]).reshape(*x.shape[:-1], 3, HEADS, WIDTH // HEADS)
    q, k, v = (parts[..., i, :, :] for i in range(3))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (WIDTH // HEADS) ** -0.5
    past = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(past, scores, -1e30))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ block["mix"]


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale


transformer = Workload(
    name="transformer",
    steps=1000,
    rates=(1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    problem=_problem,
    recipe={"b2": 0.99, "weight_decay": 0.1, "mask": "!*scale"},
    clip=1.0,
    warmup=0.1,
)
