# SPDX-License-Identifier: Apache-2.0
"""Handwritten digits, classified by a multilayer perceptron or a small convolutional network.

The data are scikit-learn's 1,797 images of 8 x 8 pixels, or MNIST from a folder with its
four IDX files.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.cli.flags import UsageError, check_folder, optional_import
from adamx.cli.tasks.batches import epochs
from adamx.cli.tasks.idx import read_mnist
from adamx.cli.tasks.task import Defaults, Task

HIDDEN, CLASSES = (512, 256), 10
HELD_OUT = 360

Batch = tuple[Any, Any]
Model = tuple[str, Callable[[Any], Any], Callable[[Any, jax.Array], jax.Array]]

DEFAULTS = Defaults(steps=1500, batch_size=128, learning_rate=1e-3)


def digits(seed: int, batch_size: int, data: str | None = None) -> Task:
    """The task with a perceptron of widths 64 (784 for MNIST), 512, 256 and 10."""
    return _task(seed, batch_size, data, _perceptron)


def digits_cnn(seed: int, batch_size: int, data: str | None = None) -> Task:
    """The task with two convolutions, each followed by pooling, and two dense layers."""
    return _task(seed, batch_size, data, _convolutional)


def _task(seed: int, batch_size: int, data: str | None, model: Callable[[int], Model]) -> Task:
    if data is not None:
        check_folder("--data", data)
    train, test = _split(seed) if data is None else read_mnist(data)
    count, side = len(train[1]), train[0].shape[1]
    if batch_size > count:
        raise UsageError(
            f"--batch-size must be at most {count}, the size of the training set, got {batch_size}"
        )
    name, init, logits = model(side)

    def loss(params: Any, batch: Batch) -> jax.Array:
        images, labels = batch
        found = logits(params, images).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(found, labels).mean()

    @jax.jit
    def held_out(params: Any) -> jax.Array:
        return loss(params, test)

    @jax.jit
    def part(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        right = jnp.argmax(logits(params, batch[0]), axis=-1) == batch[1]
        return loss(params, batch), jnp.mean(right.astype(jnp.float32))

    def scores(params: Any) -> dict[str, float]:
        found = {}
        for which, (images, labels) in (("train", train), ("test", test)):
            pieces = max(1, -(-len(labels) // 10_000))  # of nearly equal sizes
            pairs = zip(np.array_split(images, pieces), np.array_split(labels, pieces), strict=True)
            sums = [len(y) * np.array(part(params, (x, y)), float) for x, y in pairs]
            found[f"{which} loss"], found[f"{which} accuracy"] = np.sum(sums, 0) / len(labels)
        return {"loss": found.pop("train loss"), **found}

    source = "scikit-learn's digits" if data is None else data
    return Task(
        title=f"{source}: {count:,} images to train on, {len(test[1]):,} to test on, {name}",
        params=init(np.random.default_rng([seed, 2])),
        loss=loss,
        batch=epochs(train, batch_size, seed),
        glance=held_out,
        scores=scores,
        units=("images", batch_size),
    )


def _split(seed: int) -> tuple[Batch, Batch]:
    data = optional_import("sklearn.datasets", "scikit-learn").load_digits()
    images = (data.images / 16).astype(np.float32)
    labels = data.target.astype(np.int32)
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    return (images[train], labels[train]), (images[test], labels[test])


def _layer(random: np.random.Generator, *shape: int) -> dict[str, jax.Array]:
    """He's initialisation: normal kernels of variance 2 / inputs, zero biases."""
    scale = (2 / np.prod(shape[:-1])) ** 0.5
    return {
        "kernel": jnp.asarray(random.normal(0, scale, shape), jnp.float32),
        "bias": jnp.zeros(shape[-1], jnp.float32),
    }


def _perceptron(side: int) -> Model:
    widths = (side * side, *HIDDEN, CLASSES)

    def init(random: np.random.Generator) -> list[dict[str, jax.Array]]:
        return [_layer(random, *pair) for pair in itertools.pairwise(widths)]

    def logits(params: Any, images: jax.Array) -> jax.Array:
        # GELU because it is smooth: with ReLU one rounding error can flip a unit, and two runs of
        # the same optimizer drift apart by a hundred learning rates.
        *hidden, last = params
        x = jnp.asarray(images).reshape(len(images), -1).astype(last["kernel"].dtype)
        for layer in hidden:
            x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
        return x @ last["kernel"] + last["bias"]

    return f"MLP {'-'.join(map(str, widths))}", init, logits


def _convolutional(side: int) -> Model:
    channels, top = (16, 32), (side // 4) ** 2 * 32

    def init(random: np.random.Generator) -> dict[str, Any]:
        first, second = channels
        return {
            "conv_0": _layer(random, 3, 3, 1, first),
            "conv_1": _layer(random, 3, 3, first, second),
            "dense": _layer(random, top, 64),
            "head": _layer(random, 64, CLASSES),
        }

    def logits(params: Any, images: jax.Array) -> jax.Array:
        x = jnp.asarray(images)[..., None].astype(params["head"]["kernel"].dtype)
        for layer in (params["conv_0"], params["conv_1"]):
            x = jax.lax.conv_general_dilated(
                x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.gelu(x + layer["bias"])
            b, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))
        x = x.reshape(len(x), -1)
        x = jax.nn.gelu(x @ params["dense"]["kernel"] + params["dense"]["bias"])
        return x @ params["head"]["kernel"] + params["head"]["bias"]

    return "CNN 16-32-64-10", init, logits
