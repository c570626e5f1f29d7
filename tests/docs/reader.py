# SPDX-License-Identifier: Apache-2.0
"""What a reader of the README and of `docs/` has, and the code blocks that they type."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import adamx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(path, language="python"):
    """The code blocks of a Markdown file in one language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def theirs():
    """A model, a batch, an optimizer, and where training stands."""
    params = {"decoder": {"kernel": jnp.ones((8, 8)), "bias": jnp.zeros(8)}}
    batch = jnp.linspace(-1, 1, 64).reshape(8, 8)

    def loss_fn(params, batch):
        return jnp.mean((batch @ params["decoder"]["kernel"] + params["decoder"]["bias"]) ** 2)

    opt = adamx.adamw(3e-4)
    return {
        "adamx": adamx,
        "jax": jax,
        "jnp": jnp,
        "optax": optax,
        "params": params,
        "batch": batch,
        "loss_fn": loss_fn,
        "opt": opt,
        "state": opt.init(params),
        "grads": jax.grad(loss_fn)(params, batch),
        "step": 1,
    }


def typed(page, **more):
    """What a reader has after typing every block of a page, one after the other."""
    reader = theirs() | more
    for block in blocks(DOCS / page):
        exec(compile(block, page, "exec"), reader)
    return reader
