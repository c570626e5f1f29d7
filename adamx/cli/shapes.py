# SPDX-License-Identifier: Apache-2.0
"""The parameter trees of the benchmark, as shapes; all leaves are float32."""

from collections.abc import Callable

Shapes = dict[str, tuple[int, ...]]


def one() -> Shapes:
    """One leaf of 33.5 M parameters: memory traffic only."""
    return {"kernel": (4096, 8192)}


def gpt2(layers: int = 12, width: int = 768) -> Shapes:
    """GPT-2, small by default (124 M parameters in 148 leaves): a realistic mix of sizes."""
    ends = {"ln_f/scale": (width,), "ln_f/bias": (width,)}
    return {
        "tokens": (50257, width),
        "positions": (1024, width),
        **stacked(layers, block(width)),
        **ends,
    }


def block(width: int) -> Shapes:
    """A transformer block with biases; its MLP is four times as wide as the residual stream."""
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
    """The shapes of one layer, repeated `layers` times under names of their own."""
    return {f"block_{i}/{name}": shape for i in range(layers) for name, shape in layer.items()}


def leaves() -> Shapes:
    """1,000 small leaves: overhead only."""
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
