# SPDX-License-Identifier: Apache-2.0
"""Next-byte prediction on the source of Python's standard library, by a small transformer.

Every machine already has this text. It differs from one version of Python to the next.
"""

import bz2
import functools
import math
import sysconfig
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adamx.cli.flags import UsageError, check_folder
from adamx.cli.tasks import transformer
from adamx.cli.tasks.task import Defaults, Task

SIZE = transformer.Size()
HELD_OUT = 200_000
AT_ONCE = 64  # windows per evaluation call
LEFT_OUT = frozenset("test tests site-packages idlelib lib2to3 encodings __pycache__ runs".split())

DEFAULTS = Defaults(
    steps=1800,
    batch_size=12,
    learning_rate=4e-3,
    schedule="cosine",
    clip=1.0,
    settings=(("b2", 0.99), ("weight_decay", 0.1), ("mask", "*/qkv|*/out|*/up|*/down|head")),
)


def source(seed: int, batch_size: int, data: str | None = None) -> Task:
    """The task; `data` is a folder of text files instead. Every twentieth file is held out."""
    text, held_out = (np.frombuffer(part, np.uint8) for part in read(data))
    length = SIZE.context + 1

    def batch(step: int) -> np.ndarray:
        starts = np.random.default_rng([seed, 1, step]).integers(0, len(text) - length, batch_size)
        return text[starts[:, None] + np.arange(length)]

    def loss(params: Any, windows: Any) -> jax.Array:
        return transformer.loss(params, windows, SIZE.heads)

    @jax.jit
    def summed(params: Any, windows: jax.Array) -> jax.Array:
        return loss(params, windows)

    count = (len(held_out) - 1) // SIZE.context // AT_ONCE * AT_ONCE
    starts = np.arange(count) * SIZE.context  # each byte is predicted once
    windows = held_out[starts[:, None] + np.arange(length)].reshape(-1, AT_ONCE, length)
    told = held_out[: count * SIZE.context + 1].tobytes()

    def scores(params: Any) -> dict[str, float]:
        nats = np.mean([float(summed(params, part)) for part in windows])
        return {"loss": float(nats), "bits per byte": float(nats) / math.log(2)}

    def bits(compressed: bytes) -> str:
        return f"{8 * len(compressed) / len(told):.3f} bits per byte"

    name = "the standard library's source" if data is None else data
    parameters = sum(x.size for x in jax.tree.leaves(transformer.init(seed, SIZE)))
    return Task(
        title=f"{name}: {len(text):,} bytes to train on, {len(told):,} held out, transformer of "
        f"{parameters:,} parameters",
        params=transformer.init(seed, SIZE),
        loss=loss,
        batch=batch,
        glance=lambda params: summed(params, windows[0]),
        scores=scores,
        units=("bytes", batch_size * SIZE.context),
        beside=(("zlib", bits(zlib.compress(told, 9))), ("bzip2", bits(bz2.compress(told, 9)))),
    )


@functools.cache
def read(folder: str | None = None) -> tuple[bytes, bytes]:
    """The training text and the held-out text."""
    if folder:
        check_folder("--data", folder)
    root = Path(folder or sysconfig.get_paths()["stdlib"])
    files = sorted(
        path
        for path in root.rglob("*" if folder else "*.py")
        if path.is_file() and not LEFT_OUT & set(path.relative_to(root).parts)
    )
    kept = [path for i, path in enumerate(files) if i % 20 != 3]
    text = b"\n".join(path.read_bytes() for path in kept)  # every twentieth is held out
    held_out = b"\n".join(path.read_bytes() for path in files[3::20])[:HELD_OUT]
    least = (SIZE.context + 1) * AT_ONCE
    if min(len(text), len(held_out)) < least:
        raise UsageError(
            f"--data {root}: {len(files)} files with {len(text):,} bytes to train on and "
            f"{len(held_out):,} held out are too few: add text, --task source takes {least:,} of "
            "each and holds out every twentieth file"
        )
    return text, held_out
