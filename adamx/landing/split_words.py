# SPDX-License-Identifier: Apache-2.0
"""Shared by `exact`, `compensated8` and `stochastic`: a weight is one word. Its upper half is the
parameter; 16, 8 or none of its lower bits are the remainder."""

import jax
import jax.numpy as jnp
from jax import lax

from adamx.landing import float_words


def land(
    p: jax.Array, step: jax.Array, remainder: jax.Array | None, bits: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The update from `p` to the upper half of the weight after `step`, and the remainder.

    Old and new parameter are multiples of the smaller one's last digit, so their difference is an
    exact float32, except where a step cancels all but 2^-15 of a parameter. The error is then as
    large as the rounding error of such a step.
    """
    kept, old = _kept(remainder), p.astype(jnp.float32)
    target = weight(p, remainder) + step
    word = float_words.of(target, p.dtype)
    if bits is not None:
        word = float_words.randomly(word, bits, kept)
    if kept:
        new = float_words.value(float_words.nearest(word), p.dtype)
    else:
        new = float_words.value(float_words.upper(word), p.dtype)
        new = lax.clamp(-_most(p.dtype), new, _most(p.dtype))  # chance alone makes no infinity
    update = visible(new - old, target, p.dtype)
    if remainder is None:
        return update, None
    lower = float_words.lower(word, 16 - kept, p.dtype)
    return update, lower.astype(remainder.dtype)  # the lower bits, as they are


def visible(update: jax.Array, target: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`update`, or infinity or NaN where `target` is beyond the numbers of `dtype`."""
    if dtype == jnp.float16:
        return jnp.where(jnp.abs(target) < 65520, update, target * jnp.inf)
    return jnp.where(jnp.abs(target) < jnp.inf, update, target)


def _most(dtype: jnp.dtype) -> jax.Array:
    return jnp.float32(jnp.finfo(dtype).max)


def weight(p: jax.Array, remainder: jax.Array | None) -> jax.Array:
    """The float32 that `p` and `remainder` make up."""
    if remainder is None:
        return p.astype(jnp.float32)
    return float_words.with_lower(p, remainder.astype(jnp.int32) << (16 - _kept(remainder)))


def _kept(remainder: jax.Array | None) -> int:
    return 0 if remainder is None else 8 * remainder.dtype.itemsize
