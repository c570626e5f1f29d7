# SPDX-License-Identifier: Apache-2.0
"""Scikit-learn's 1,797 handwritten digits, read by a small multilayer perceptron."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.cli.arguments import UsageError, optional_import
from adamx.cli.tasks.task import Task

WIDTHS = (64, 512, 256, 10)
HELD_OUT = 360

Params = list[dict[str, jax.Array]]
Batch = tuple[jax.Array, jax.Array]


def digits(seed: int, batch_size: int) -> Task:
    """The task: images of 8 x 8 pixels in [0, 1], a fifth of them held out."""
    train, test = _split(seed)
    size = len(train[1])
    if batch_size > size:
        raise UsageError(f"--batch-size must be at most {size}, the training set, got {batch_size}")

    def batches() -> Iterator[Batch]:
        random = np.random.default_rng([seed, 1])
        while True:
            order = random.permutation(size)
            for start in range(0, size - batch_size + 1, batch_size):
                chosen = order[start : start + batch_size]
                yield train[0][chosen], train[1][chosen]

    @jax.jit
    def scores(params: Params) -> dict[str, jax.Array]:
        return {
            "loss": _loss(params, train),
            "train accuracy": _accuracy(params, train),
            "test loss": _loss(params, test),
            "test accuracy": _accuracy(params, test),
        }

    title = (
        f"scikit-learn's digits: {size:,} images to train on, {HELD_OUT} to test on, "
        f"MLP {'-'.join(map(str, WIDTHS))}"
    )
    return Task(title, _init(seed), _loss, batches, scores)


def _split(seed: int) -> tuple[Batch, Batch]:
    data = optional_import("sklearn.datasets", "scikit-learn").load_digits()
    images = (data.data / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return (images[train], labels[train]), (images[test], labels[test])


def _init(seed: int) -> Params:
    """He's initialisation: normal kernels of variance 2 / inputs, zero biases."""
    random = np.random.default_rng([seed, 2])
    return [
        {
            "kernel": jnp.float32(random.normal(0, (2 / inputs) ** 0.5, (inputs, outputs))),
            "bias": jnp.zeros(outputs, jnp.float32),
        }
        for inputs, outputs in itertools.pairwise(WIDTHS)
    ]


def _logits(params: Params, images: jax.Array) -> jax.Array:
    # GELU, for its smoothness: with ReLU one rounding error switches a unit over, and two runs of
    # the very same optimizer drift apart by a hundred learning rates.
    *hidden, last = params
    for layer in hidden:
        images = jax.nn.gelu(images @ layer["kernel"] + layer["bias"])
    return images @ last["kernel"] + last["bias"]


def _loss(params: Params, batch: Batch) -> jax.Array:
    images, labels = batch
    logits = _logits(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _accuracy(params: Params, batch: Batch) -> jax.Array:
    images, labels = batch
    return jnp.mean(jnp.argmax(_logits(params, images), axis=-1) == labels)
