# SPDX-License-Identifier: Apache-2.0
"""Models by name: the shapes of their leaves, computed from their published dimensions."""

from collections.abc import Callable
from functools import partial

from adamx.cli.shapes import Shapes, block, gpt2, stacked


def llama(layers: int, width: int, key_width: int, hidden: int, vocabulary: int) -> Shapes:
    """Llama and similar models: no biases, three matrices in the MLP, an untied output matrix.

    `width` is that of the residual stream and of all query heads together, `key_width` that of all
    key heads, which is less where queries share them, `hidden` that inside the MLP.
    """
    layer = {
        "attention/norm": (width,),
        "attention/q": (width, width),
        "attention/k": (width, key_width),
        "attention/v": (width, key_width),
        "attention/out": (width, width),
        "mlp/norm": (width,),
        "mlp/gate": (width, hidden),
        "mlp/up": (width, hidden),
        "mlp/down": (hidden, width),
    }
    ends = {"norm": (width,), "output": (width, vocabulary)}
    return {"tokens": (vocabulary, width), **stacked(layers, layer), **ends}


def vit(layers: int, width: int, patch: int, image: int = 224, classes: int = 1000) -> Shapes:
    """A vision transformer on square colour images."""
    return {
        "patches/kernel": (patch, patch, 3, width),
        "patches/bias": (width,),
        "class": (width,),
        "positions": ((image // patch) ** 2 + 1, width),
        **stacked(layers, block(width)),
        "ln_f/scale": (width,),
        "ln_f/bias": (width,),
        "head/kernel": (width, classes),
        "head/bias": (classes,),
    }


MODELS: dict[str, Callable[[], Shapes]] = {
    "gpt2": gpt2,
    "gpt2-medium": partial(gpt2, 24, 1024),
    "gpt2-large": partial(gpt2, 36, 1280),
    "gpt2-xl": partial(gpt2, 48, 1600),
    "llama-7b": partial(llama, 32, 4096, 4096, 11008, 32000),
    "llama-13b": partial(llama, 40, 5120, 5120, 13824, 32000),
    "llama-70b": partial(llama, 80, 8192, 8 * 128, 28672, 32000),
    "llama3-8b": partial(llama, 32, 4096, 8 * 128, 14336, 128256),
    "llama3-70b": partial(llama, 80, 8192, 8 * 128, 28672, 128256),
    "llama3-405b": partial(llama, 126, 16384, 8 * 128, 53248, 128256),
    "mistral-7b": partial(llama, 32, 4096, 8 * 128, 14336, 32000),
    "vit-b16": partial(vit, 12, 768, 16),
    "vit-l16": partial(vit, 24, 1024, 16),
}
