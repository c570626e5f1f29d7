# SPDX-License-Identifier: Apache-2.0
"""Shared by `exact`, `compensated8` and `stochastic`: a weight is one word. Its upper half is the
parameter; 16, 8 or none of its lower bits are the remainder."""

import jax
import jax.numpy as jnp

from adamx.landing import float_words


def land(
    p: jax.Array, step: jax.Array, remainder: jax.Array | None, bits: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The update from `p` to the upper half of the weight after `step`, and the remainder.

    Old and new parameter are multiples of the smaller one's last digit, so their difference is an
    exact float32, except where a step cancels all but 2^-15 of a parameter. The error is then as
    large as the rounding error of such a step.
    """
    kept, old = _kept(remainder), float_words.of_half(p)
    target = weight(p, remainder) + step
    word = float_words.of(target, p.dtype)
    inside = float_words.is_finite(word, p.dtype)
    if bits is not None:
        word = float_words.randomly(word, bits, kept)
    upper, lower = float_words.nearest(word, p.dtype)
    update = float_words.value(upper, p.dtype) - float_words.value(old, p.dtype)
    update = jnp.where(inside, update, target * jnp.inf)  # overflow becomes a visible inf
    if remainder is None:
        return update, None
    return update, jnp.where(inside, lower >> (16 - kept), 0).astype(remainder.dtype)


def weight(p: jax.Array, remainder: jax.Array | None) -> jax.Array:
    """The float32 that `p` and `remainder` make up."""
    word = float_words.of_half(p)
    if remainder is not None:
        word = word + (remainder.astype(jnp.int32) << (16 - _kept(remainder)))
    return float_words.value(word, p.dtype)


def _kept(remainder: jax.Array | None) -> int:
    return 0 if remainder is None else 8 * remainder.dtype.itemsize
