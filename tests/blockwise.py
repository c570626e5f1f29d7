# SPDX-License-Identifier: Apache-2.0
"""How others hold Adam's moments, written from their published descriptions, for comparison only.

Each is a round trip of both moments of one leaf: what a step writes and the next one reads. All
round to nearest. A block is a run of the flattened leaf, the last one filled up with zeros; every
leaf is coded, though some of these leave small ones in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Code = Callable[[jax.Array], jax.Array]


class Reference(NamedTuple):
    """A pair of codes: of the mean and of the mean square.

    Attributes:
      bytes: per parameter, for both moments and their scales, where blocks are full.
      mean, square: round trips of an array of any shape.
    """

    bytes: float
    mean: Code
    square: Code

    def requantise(self, m: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both moments as the next step will read them."""
        return self.mean(m), self.square(v)


def dynamic_levels(signed: bool, bits: int = 8) -> np.ndarray:
    """The levels of the dynamic tree code (arXiv 1511.04561, 2110.02861), ascending, within ±1.

    A run of zeros counts the decades below 1, the bits that remain divide that decade's
    [0.1, 1] into equal parts, each of which its midpoint stands for. 0 and 1 are levels of their
    own. Without a sign its bit goes to the fraction.
    """
    decades = bits - 1
    positive = []
    for decade in range(decades):
        edges = np.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1)
        positive.append((edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade + 1 - decades))
    found = np.concatenate(positive)
    negative = -found if signed else found[:0]
    return np.sort(np.concatenate([negative, found, [0.0, 1.0]]))


def table(levels: np.ndarray, block: int, floor: float = 0.0) -> Code:
    """The nearest of `levels`, times the block's largest magnitude, which rests in float32."""
    between = jnp.asarray((levels[1:] + levels[:-1]) / 2, jnp.float32)
    values = jnp.asarray(levels, jnp.float32)

    def nearest(blocks: jax.Array) -> jax.Array:
        scale = jnp.maximum(_largest(blocks), jnp.float32(floor))
        return values[jnp.searchsorted(between, _over(blocks, scale))] * scale

    return _in_blocks(nearest, block)


def linear(steps: int, block: int, scale_dtype: DTypeLike) -> Code:
    """The nearest of `steps` equal parts of the block's largest magnitude."""

    def nearest(blocks: jax.Array) -> jax.Array:
        scale = _rested(_largest(blocks), scale_dtype)
        return jnp.clip(jnp.round(_over(blocks, scale) * steps), -steps, steps) / steps * scale

    return _in_blocks(nearest, block)


def softsign(block: int) -> Code:
    """FlashOptim's mean (arXiv 2602.23349): 127 parts of 2x / (1 + |x|), x over the largest."""

    def nearest(blocks: jax.Array) -> jax.Array:
        scale = _rested(_largest(blocks), jnp.float16)
        x = jnp.clip(_over(blocks, scale), -1, 1)
        z = jnp.round(127 * 2 * x / (1 + jnp.abs(x))) / 127
        return z / (2 - jnp.abs(z)) * scale

    return _in_blocks(nearest, block)


def root(block: int) -> Code:
    """FlashOptim's mean square: 255 parts of the root, whose largest is the scale."""
    code = linear(255, block, jnp.float16)
    return lambda v: jnp.square(code(jnp.sqrt(v)))


def minifloat(dtype: DTypeLike, block: int | None = None, scaled: bool = True) -> Code:
    """An 8-bit float; scaled to its range by the largest of a block, of the leaf, or not at all."""
    most = float(jnp.finfo(dtype).max)

    def nearest(x: jax.Array) -> jax.Array:
        scale = _largest(x) / most if scaled else jnp.ones_like(x[..., :1])
        return jnp.clip(_over(x, scale), -most, most).astype(dtype).astype(jnp.float32) * scale

    return lambda x: _in_blocks(nearest, block or max(x.size, 1))(x)


def _in_blocks(code: Code, block: int) -> Code:
    def over(x: jax.Array) -> jax.Array:
        flat = x.ravel()
        filled = jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)
        return code(filled).ravel()[: flat.size].reshape(x.shape)

    return over


def _largest(blocks: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)


def _over(x: jax.Array, scale: jax.Array) -> jax.Array:
    """`x / scale`, 0 where a block has nothing in it."""
    return x / jnp.where(scale > 0, scale, 1)


def _rested(scale: jax.Array, dtype: DTypeLike) -> jax.Array:
    return scale.astype(dtype).astype(jnp.float32)


def _both(size: float, block: int, scale: int) -> float:
    """Bytes of two moments of `size` bytes with a scale of `scale` bytes per block."""
    return 2 * (size + scale / block)


FORMATS: dict[str, Reference] = {
    # arXiv 2110.02861, with the block of 256 of its present versions.
    "bitsandbytes": Reference(
        _both(1, 256, 4), table(dynamic_levels(True), 256), table(dynamic_levels(False), 256)
    ),
    # The same map; a block's scale is never below 1e-12.
    "torchao8": Reference(
        _both(1, 256, 4),
        table(dynamic_levels(True), 256, 1e-12),
        table(dynamic_levels(False), 256, 1e-12),
    ),
    # arXiv 2309.01507: a dynamic map for the mean, sixteenths without zero for the square.
    "torchao4": Reference(
        _both(0.5, 128, 4),
        table(dynamic_levels(True, 4), 128, 1e-12),
        table(np.arange(1, 17) / 16, 128, 1e-12),
    ),
    "torchao-e4m3": Reference(
        _both(1, 256, 4), *[minifloat(jnp.float8_e4m3fn, 256) for _ in range(2)]
    ),
    # One scale per leaf costs nothing per parameter.
    "e4m3": Reference(2.0, *[minifloat(jnp.float8_e4m3fn) for _ in range(2)]),
    "e5m2": Reference(2.0, *[minifloat(jnp.float8_e5m2, scaled=False) for _ in range(2)]),
    "flashoptim": Reference(_both(1, 32, 2), softsign(32), root(32)),
    # Nobody's in particular: what comes to mind first. bfloat16 scales, for the square's range.
    "block32": Reference(
        _both(1, 32, 2), linear(127, 32, jnp.bfloat16), linear(255, 32, jnp.bfloat16)
    ),
}
