# SPDX-License-Identifier: Apache-2.0
"""A small decoder-only transformer over bytes, with embeddings of 2-, 3- and 4-grams.

The n-grams are hashed into tables, so that local context costs a lookup each and no arithmetic.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

GRAMS = (2, 3, 4)


class Size(NamedTuple):
    """The size of the model; `rows`, the length of each n-gram table, is a power of two."""

    width: int = 128
    heads: int = 4
    layers: int = 3
    context: int = 128
    rows: int = 8192


def init(seed: int, size: Size) -> dict[str, Any]:
    """Normal kernels of variance 1 / inputs.

    Kernels that write to the residual stream are smaller, so that depth does not change its size.
    """
    random = np.random.default_rng([seed, 2])
    width, deep = size.width, (2 * size.layers) ** -0.5

    def normal(*shape: int, scale: float) -> jax.Array:
        return jnp.asarray(random.normal(0, scale, shape), jnp.float32)

    def dense(inputs: int, outputs: int, scale: float = 1.0) -> jax.Array:
        return normal(inputs, outputs, scale=scale * inputs**-0.5)

    blocks = {
        f"block_{i}": {
            "attention": {
                "scale": jnp.ones(width, jnp.float32),
                "qkv": dense(width, 3 * width),
                "out": dense(width, width, deep),
            },
            "mlp": {
                "scale": jnp.ones(width, jnp.float32),
                "up": dense(width, 4 * width),
                "down": dense(4 * width, width, deep),
            },
        }
        for i in range(size.layers)
    }
    return {
        "bytes": normal(256, width, scale=0.02),
        "positions": normal(size.context, width, scale=0.02),
        "grams": {str(n): normal(size.rows, width, scale=0.02) for n in GRAMS},
        **blocks,
        "scale": jnp.ones(width, jnp.float32),
        "head": dense(width, 256, 0.5),
    }


def loss(params: Any, windows: jax.Array, heads: int) -> jax.Array:
    """The mean cross entropy of each byte given those before it, in nats."""
    inputs, labels = windows[:, :-1].astype(jnp.int32), windows[:, 1:].astype(jnp.int32)
    x = params["bytes"][inputs] + params["positions"] + _grams(params["grams"], inputs)
    for name in sorted(params):
        if name.startswith("block_"):
            block = params[name]
            x = x + _attention(block["attention"], x, heads)
            hidden = _norm(x, block["mlp"]["scale"]) @ block["mlp"]["up"]
            x = x + jnp.square(jax.nn.relu(hidden)) @ block["mlp"]["down"]
    logits = (_norm(x, params["scale"]) @ params["head"]).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _grams(tables: Any, inputs: jax.Array) -> jax.Array:
    """The sum of the embeddings of the n-grams that end at each byte."""
    hashed = before = inputs.astype(jnp.uint32)
    total = jnp.zeros([], tables[str(GRAMS[0])].dtype)
    for n in GRAMS:
        before = jnp.pad(before, ((0, 0), (1, 0)))[:, :-1]
        hashed = hashed * jnp.uint32(0x9E3779B1) + before + jnp.uint32(1)
        hashed = hashed ^ (hashed >> jnp.uint32(15))
        table = tables[str(n)]
        bits = jnp.uint32(32 - int(math.log2(table.shape[0])))
        total = total + table[(hashed * jnp.uint32(0x85EBCA6B)) >> bits]
    return total


def _attention(block: Any, x: jax.Array, heads: int) -> jax.Array:
    length, width = x.shape[-2:]
    qkv = _norm(x, block["scale"]) @ block["qkv"]
    parts = qkv.reshape(*x.shape[:-1], 3, heads, width // heads)
    q, k, v = (parts[..., i, :, :] for i in range(3))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width // heads) ** -0.5
    past = np.tril(np.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(past, scores, -1e4))
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ block["out"]


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    factor = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)
    return (wide * factor).astype(x.dtype) * scale
