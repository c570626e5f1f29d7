# SPDX-License-Identifier: Apache-2.0
"""Regression of a smooth function of ten numbers under noise, by a perceptron with dropout.

The function is Friedman's first: 10 sin(pi a b) + 20 (c - 1/2)^2 + 10 d + 5 e; the other five
numbers have no effect.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.cli.flags import UsageError
from adamx.cli.tasks.batches import epochs
from adamx.cli.tasks.task import Defaults, Task

TRAIN, TEST, NOISE = 2000, 2000, 1.0
WIDTHS = (10, 128, 128, 1)
DROPOUT = 0.1

DEFAULTS = Defaults(steps=2000, batch_size=64, learning_rate=2e-3, schedule="cosine")


def regression(seed: int, batch_size: int, data: str | None = None) -> Task:
    """The task; it makes its own data."""
    if data is not None:
        raise UsageError("--data: --task regression makes its own data; leave --data out")
    if batch_size > TRAIN:
        raise UsageError(f"--batch-size must be at most {TRAIN}, got {batch_size}")
    random = np.random.default_rng([seed, 0])
    x = random.random((TRAIN + TEST, 10)).astype(np.float32)
    exact = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    exact = (exact + 10 * x[:, 3] + 5 * x[:, 4]).astype(np.float32)
    y = exact + NOISE * random.normal(size=len(x)).astype(np.float32)
    x, y, exact = 2 * x - 1, (y - 14.4) / 5, (exact - 14.4) / 5

    @jax.jit
    def error(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(_predicted(params, x, None) - y))

    def scores(params: Any) -> dict[str, Any]:
        # In the function's own units, in which the noise has a root mean square of 1.
        errors = {"of what is noisy": y, "of what is exact": exact}
        found = {
            k: 5 * float(error(params, x[TRAIN:], v[TRAIN:])) ** 0.5 for k, v in errors.items()
        }
        return {"loss": error(params, x[:TRAIN], y[:TRAIN])} | {
            f"root mean square error {k}": v for k, v in found.items()
        }

    return Task(
        title=f"a function of ten numbers: {TRAIN:,} points to train on, {TEST:,} to test on, "
        f"MLP {'-'.join(map(str, WIDTHS))} with dropout {DROPOUT}",
        params=_init(np.random.default_rng([seed, 2])),
        loss=_loss,
        batch=epochs((x[:TRAIN], y[:TRAIN]), batch_size, seed),
        glance=lambda params: error(params, x[TRAIN:], y[TRAIN:]),
        scores=scores,
        units=("points", batch_size),
        random=True,
    )


def _init(random: np.random.Generator) -> dict[str, Any]:
    return {
        f"layer_{i}": {
            "kernel": jnp.asarray(
                random.normal(0, (2 / WIDTHS[i]) ** 0.5, WIDTHS[i : i + 2]), "f4"
            ),
            "bias": jnp.zeros(WIDTHS[i + 1], jnp.float32),
        }
        for i in range(len(WIDTHS) - 1)
    }


def _predicted(params: Any, x: Any, key: Any) -> jax.Array:
    """The model's output; dropout is on only with a key."""
    x = jnp.asarray(x).astype(params["layer_0"]["bias"].dtype)
    last = len(params) - 1
    for i in range(last):
        layer = params[f"layer_{i}"]
        x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
        if key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - DROPOUT, x.shape)
            x = jnp.where(kept, x / jnp.asarray(1 - DROPOUT, x.dtype), jnp.zeros_like(x))
    layer = params[f"layer_{last}"]
    return (x @ layer["kernel"] + layer["bias"]).astype(jnp.float32)[:, 0]


def _loss(params: Any, batch: Any, *, key: Any = None) -> jax.Array:
    x, y = batch
    return jnp.mean(jnp.square(_predicted(params, x, key) - y))
