# SPDX-License-Identifier: Apache-2.0
"""Landing by compensated summation: a rounding error is added to the next step."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.random_bits import Seed
from adamx.landing import float_words, split_words
from adamx.landing.transform import Link, link


def kahan(seed: Seed = 0) -> Link:
    r"""Adds steps :math:`u` to parameters :math:`p` with a remainder :math:`r` in their own dtype.

    .. math:: y = u + r, \quad p \leftarrow \mathrm{nearest}(p + y), \quad
        r \leftarrow y - \Delta p

    The remainder is rounded stochastically, so that steps far below its last place are taken on
    average. In float16 it is stored times 2^11; otherwise it would be subnormal for parameters
    below 1/8.

    If a parameter is changed from outside, its remainder is clipped to half a unit in the new
    value's last place.

    Args:
      seed: the seed of the rounding noise.

    Returns:
      The last link of a chain; its updates are float32.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adamw(1e-3, landing="kahan")
      >>> opt.init(jnp.ones(3, jnp.bfloat16))[-1].remainder
      Array([0, 0, 0], dtype=bfloat16)

    References:
      Kahan, `Further Remarks on Reducing Truncation Errors
      <https://doi.org/10.1145/363707.363723>`_, 1965.
    """
    return link("kahan", land, remainder=_itself, seed=seed)


def _itself(dtype: jnp.dtype) -> Any:
    return dtype


def land(
    p: jax.Array, step: jax.Array, remainder: jax.Array, bits: jax.Array
) -> tuple[jax.Array, jax.Array]:
    old = p.astype(jnp.float32)
    y = step + _missing(old, remainder)
    target = old + y
    update = float_words.value(float_words.nearest(float_words.of(target, p.dtype)), p.dtype) - old
    left = (y - update) * _SCALE[p.dtype]
    left = float_words.of(jnp.where(jnp.isfinite(left), left, 0), p.dtype)
    remainder = float_words.half(float_words.randomly(left, bits, kept=0), p.dtype)
    return split_words.visible(update, target, p.dtype), remainder


def weight(p: jax.Array, remainder: jax.Array) -> jax.Array:
    """The float32 nearest to parameter plus remainder."""
    old = p.astype(jnp.float32)
    return old + _missing(old, remainder)


def _missing(p: jax.Array, remainder: jax.Array) -> jax.Array:
    """The remainder, clipped to half a unit in the last place of `p`."""
    most = jnp.maximum(jnp.abs(p) * _HALF_UNIT[remainder.dtype], _LEAST[remainder.dtype])
    found = float_words.value(float_words.of_half(remainder), remainder.dtype) * (
        1 / _SCALE[remainder.dtype]
    )
    return jnp.clip(found, -most, most)


_BFLOAT16, _FLOAT16 = float_words.HALVES
_SCALE = {_BFLOAT16: 1.0, _FLOAT16: 2.0**11}
_HALF_UNIT = {_BFLOAT16: 2.0**-8, _FLOAT16: 2.0**-11}  # relative, at the start of a binade
_LEAST = {_BFLOAT16: 0.0, _FLOAT16: 2.0**-25}  # absolute, for subnormal numbers
