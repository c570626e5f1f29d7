# SPDX-License-Identifier: Apache-2.0
"""A hash of an array, which tells copies apart and finds what a disk has changed.

    fingerprint(x) = sum over i of hash(bits of x[i], i)    mod 2^32

A sum does not depend on the order of its terms, so that an array has the same fingerprint under any
sharding, on any number of devices and processes. The hash is one to one in each word of 32 bits, so
that a single changed word is always found, and several with a probability of 1 - 2^-32.
"""

import jax
import jax.numpy as jnp
from jax import lax

from adamx.core import random_bits


def fingerprint(x: jax.Array) -> jax.Array:
    """The fingerprint of an array or of a PRNG key, for the inside of a compiled function."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.iscomplexobj(x):
        x = jnp.stack([x.real, x.imag])
    x = jax.device_put(x, jax.memory.Space.Device)
    words = _words(x)
    places = random_bits.mix(random_bits.index(words.shape))
    return jnp.sum(random_bits.mix(words ^ places), dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """The bits of each element as uint32; those of 64 bits as two, along a new dimension."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    is_whole = jnp.issubdtype(x.dtype, jnp.integer)
    bits = (jnp.iinfo if is_whole else jnp.finfo)(x.dtype).bits
    if bits < 8:  # exact in the wider type
        return _words(x.astype(jnp.int32 if is_whole else jnp.float32))
    return lax.bitcast_convert_type(x, jnp.dtype(f"uint{min(bits, 32)}")).astype(jnp.uint32)
