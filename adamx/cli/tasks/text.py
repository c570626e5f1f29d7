# SPDX-License-Identifier: Apache-2.0
"""Text classification by a small convolutional network over bytes.

By default the classes are packages of Python's standard library, else the folders in a folder.
"""

import sysconfig
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.cli.flags import UsageError, check_folder
from adamx.cli.tasks.batches import epochs
from adamx.cli.tasks.task import Defaults, Task

PACKAGES = ("asyncio", "ctypes", "email", "importlib", "json", "multiprocessing", "tkinter")
LENGTH, WIDTH, SPANS = 256, 32, (3, 5, 7)
HELD_OUT = 5  # one piece in this many

DEFAULTS = Defaults(steps=600, batch_size=64, learning_rate=2e-3, schedule="cosine", clip=1.0)


def text(seed: int, batch_size: int, data: str | None = None) -> Task:
    """The task; `data` is a folder with one folder of texts per class."""
    kinds, pieces, labels = _read(data)
    order = np.random.default_rng([seed, 0]).permutation(len(labels))
    test, train = np.split(order, [len(order) // HELD_OUT])
    if batch_size > len(train):
        most = len(train)
        raise UsageError(
            f"--batch-size must be at most {most}, the size of the training set, got {batch_size}"
        )
    held_out = pieces[test], labels[test]

    @jax.jit
    def figures(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        right = jnp.argmax(_logits(params, batch[0]), axis=-1) == batch[1]
        return _loss(params, batch), jnp.mean(right.astype(jnp.float32))

    def scores(params: Any) -> dict[str, Any]:
        loss, accuracy = figures(params, held_out)
        common = np.bincount(labels[test]).max() / len(test)
        return {"loss": loss, "test accuracy": accuracy, "most common accuracy": common}

    return Task(
        title=f"{len(train):,} pieces of {LENGTH} bytes to train on, {len(test):,} to test on, "
        f"of {len(kinds)} kinds ({', '.join(kinds)}), text CNN",
        params=_init(np.random.default_rng([seed, 2]), len(kinds)),
        loss=_loss,
        batch=epochs((pieces[train], labels[train]), batch_size, seed),
        glance=lambda params: figures(params, held_out)[0],
        scores=scores,
        units=("pieces", batch_size),
    )


def _read(folder: str | None) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    names = PACKAGES
    if folder is not None:
        check_folder("--data", folder)
        names = tuple(sorted(p.name for p in root.glob("*") if p.is_dir()))
    pieces, labels = [], []
    for label, name in enumerate(names):
        files = sorted((root / name).rglob("*.py" if folder is None else "*"))
        whole = b"\n".join(path.read_bytes() for path in files if path.is_file())
        found = np.frombuffer(whole[: len(whole) // LENGTH * LENGTH], np.uint8)
        pieces.append(found.reshape(-1, LENGTH))
        labels.append(np.full(len(pieces[-1]), label, np.int32))
    if len(names) < 2 or min(map(len, pieces)) < HELD_OUT:
        raise UsageError(
            f"--data {root}: --task text needs at least two folders in it, one for each class, "
            f"with {HELD_OUT * LENGTH:,} bytes of text in each; found {len(names)}"
        )
    return names, np.concatenate(pieces), np.concatenate(labels)


def _init(random: np.random.Generator, kinds: int) -> dict[str, Any]:
    def normal(*shape: int, scale: float) -> jax.Array:
        return jnp.asarray(random.normal(0, scale, shape), jnp.float32)

    return {
        "bytes": normal(256, WIDTH, scale=0.3),
        "spans": {
            str(n): {
                "kernel": normal(n, WIDTH, 2 * WIDTH, scale=(2 / (n * WIDTH)) ** 0.5),
                "bias": jnp.zeros(2 * WIDTH, jnp.float32),
            }
            for n in SPANS
        },
        "head": {
            "kernel": normal(2 * WIDTH * len(SPANS), kinds, scale=0.05),
            "bias": jnp.zeros(kinds, jnp.float32),
        },
    }


def _logits(params: Any, pieces: Any) -> jax.Array:
    """Convolutions over spans of bytes, the maximum of each over all positions, a linear layer."""
    x = params["bytes"][jnp.asarray(pieces).astype(jnp.int32)]
    found = []
    for layer in params["spans"].values():
        spans = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        found.append(jnp.max(jax.nn.gelu(spans + layer["bias"]), axis=1))
    head = params["head"]
    return (jnp.concatenate(found, 1) @ head["kernel"] + head["bias"]).astype(jnp.float32)


def _loss(params: Any, batch: Any) -> jax.Array:
    pieces, labels = batch
    logits = _logits(params, pieces)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
