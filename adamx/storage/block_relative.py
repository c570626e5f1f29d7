# SPDX-License-Identifier: Apache-2.0
"""Means in one byte each, relative to the root of a mean square that a block of them shares.

The root is stored whole, so it costs nothing to speak of. An element may have all of its block's
square: by Cauchy-Schwarz |m| <= 7.27 sqrt(size) roots for a block of that size (`means.py` has the
bound for one element). So the larger a block, the further a code has to reach, and the fewer
numbers an octave has: 16 for a single element, 8 for up to a million, 4 above.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx.core import random_bits
from adamx.storage.cuts import number, word
from adamx.storage.means import Means

BOUND = 7.6  # as `means.MEANS`, a little above 7.27
_COUNT = 127
_FINE = 2.0**-3  # a unit of at most this part of the root keeps usual means, some 0.2 roots, fine
_LEAST = 2.0**-60  # of a root: below, units would be denormal


def encode(mean: jax.Array, root: jax.Array, size: int, key: random_bits.Key) -> jax.Array:
    """The int8 codes of means, rounded stochastically with expectation `mean`.

    `root` has the root of each one's block, beside it, and `size` is the number of its elements.
    """
    means = book(size)
    noise = random_bits.noise(key, mean.shape).draw(1)
    return means.encode(mean.astype(jnp.float32), unit(root, means), noise).astype(jnp.int8)


def decode(codes: jax.Array, root: jax.Array, size: int) -> jax.Array:
    """The means with these codes; NaN where the root is not finite."""
    means = book(size)
    root = root.astype(jnp.float32)
    return means.decode(codes.astype(jnp.int32), unit(root, means)) + 0 * root  # inf * 0 is NaN


def book(size: int) -> Means:
    """The finest code that holds every mean of a block of this size."""
    most = BOUND * math.sqrt(max(1, size))
    for drop in (19, 20):
        part = most / _reach(drop)
        if part <= _FINE:
            return Means(drop, _COUNT, part)
    return Means(21, _COUNT, most / _reach(21))


def unit(root: ArrayLike, means: Means) -> jax.Array:
    """The unit of means beside this root: a part of it, of few enough bits for zero to be exact."""
    part = lax.max(jnp.asarray(root).astype(jnp.float32), np.float32(_LEAST)) * np.float32(
        means.part
    )
    return number((word(part) >> means.drop) + 1 << means.drop)


def _reach(drop: int) -> float:
    """The largest number of a code, in units of 1."""
    return float((np.float32(1.0).view(np.int32) + (_COUNT << drop)).view(np.float32)) - 1.0
