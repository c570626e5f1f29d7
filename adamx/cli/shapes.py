# SPDX-License-Identifier: Apache-2.0
"""The parameter trees that the benchmark runs on, as shapes; all of them float32."""

from collections.abc import Callable

Shapes = dict[str, tuple[int, ...]]


def one() -> Shapes:
    """One leaf of 33.5 M parameters: nothing but memory traffic."""
    return {"kernel": (4096, 8192)}


def gpt2(layers: int = 12, width: int = 768) -> Shapes:
    """GPT-2, by default small (124 M parameters in 148 leaves): a real mixture of sizes."""
    ends = {"ln_f/scale": (width,), "ln_f/bias": (width,)}
    return {
        "tokens": (50257, width),
        "positions": (1024, width),
        **stacked(layers, block(width)),
        **ends,
    }


def block(width: int) -> Shapes:
    """A transformer's block with biases and an inner width four times the outer."""
    return {
        "ln_1/scale": (width,),
        "ln_1/bias": (width,),
        "attention/qkv/kernel": (width, 3 * width),
        "attention/qkv/bias": (3 * width,),
        "attention/out/kernel": (width, width),
        "attention/out/bias": (width,),
        "ln_2/scale": (width,),
        "ln_2/bias": (width,),
        "mlp/in/kernel": (width, 4 * width),
        "mlp/in/bias": (4 * width,),
        "mlp/out/kernel": (4 * width, width),
        "mlp/out/bias": (width,),
    }


def stacked(layers: int, layer: Shapes) -> Shapes:
    """`layers` times the shapes of one layer, each with leaves of its own."""
    return {f"block_{i}/{name}": shape for i in range(layers) for name, shape in layer.items()}


def leaves() -> Shapes:
    """1,000 small leaves: nothing but overhead."""
    return _layers(500)


def small() -> Shapes:
    """Ten small leaves, for a quick look."""
    return _layers(5)


def _layers(count: int) -> Shapes:
    kernels = {f"layer_{i}/kernel": (16, 16) for i in range(count)}
    biases = {f"layer_{i}/bias": (16,) for i in range(count)}
    return {**kernels, **biases}


TREES: dict[str, Callable[[], Shapes]] = {
    "one": one,
    "gpt2": gpt2,
    "leaves": leaves,
    "small": small,
}
