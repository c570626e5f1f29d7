# SPDX-License-Identifier: Apache-2.0
"""What `exact`, `compensated8` and `stochastic` share: a weight is one word, of which the parameter
is the upper half and the remainder 16, 8 or none of the lower bits."""

import jax
import jax.numpy as jnp

from adamx.landing import float_words


def land(
    p: jax.Array, step: jax.Array, rest: jax.Array | None, bits: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The update that lands `p` on the upper half of the weight after `step`, and the remainder.

    Both are multiples of the last digit of the smaller, so the difference of two parameters is a
    float32, except where a step undoes all but 2^-15 of a parameter. What that may cost is as much
    as the rounding of such a step.
    """
    kept, old = _kept(rest), float_words.of_half(p)
    target = weight(p, rest) + step
    word = float_words.of(target, p.dtype)
    inside = float_words.is_finite(word, p.dtype)
    if bits is not None:
        word = float_words.randomly(word, bits, kept)
    upper, lower = float_words.nearest(word, p.dtype)
    update = float_words.value(upper, p.dtype) - float_words.value(old, p.dtype)
    update = jnp.where(inside, update, target * jnp.inf)  # beyond reach is to be seen
    if rest is None:
        return update, None
    return update, jnp.where(inside, lower >> (16 - kept), 0).astype(rest.dtype)


def weight(p: jax.Array, rest: jax.Array | None) -> jax.Array:
    """The float32 of which `p` and `rest` are the parts."""
    word = float_words.of_half(p)
    if rest is not None:
        word = word + (rest.astype(jnp.int32) << (16 - _kept(rest)))
    return float_words.value(word, p.dtype)


def _kept(rest: jax.Array | None) -> int:
    return 0 if rest is None else 8 * rest.dtype.itemsize
