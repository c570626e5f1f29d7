# SPDX-License-Identifier: Apache-2.0
"""Scaling an array down to a norm, whatever its magnitude and dtype."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core.dtypes import by_part
from adamx.core.norms.scaled import Scaled

Scale = tuple[jax.Array, jax.Array]  # what to multiply by: a factor, then a gain


@jax.jit
def shrunk(x: jax.Array, norm: Scaled, bound: Any) -> jax.Array:
    """`x` scaled down to `bound` where its norm is larger, else unchanged."""
    return times(x, scale_to(norm, bound))


@jax.jit
def scale_to(norm: Scaled, bound: Any) -> Scale:
    """What to multiply an array by so that its norm is at most `bound`; exactly 1 if it is."""
    root, factor = norm
    bound = jnp.asarray(bound).astype(root.dtype)
    keep = root / factor <= bound
    gain = bound / jnp.where(keep, 1, root)
    tiny = jnp.finfo(root.dtype).tiny
    # Two steps only where one would underflow: they cost small elements their last bits.
    once = keep | (factor * gain >= tiny)
    factor, gain = jnp.where(once, 1, factor), gain * jnp.where(once, factor, 1)
    # Beside inf the finite rest vanishes; a gain of 0 would make the inf itself a NaN.
    gain = jnp.where(root == jnp.inf, tiny, gain)
    return factor, jnp.where(keep, 1, gain)


@jax.jit
def times(x: jax.Array, scale: Scale) -> jax.Array:
    """`x` times the factor, then times the gain."""
    factor, gain = scale
    return by_part(lambda part: part.astype(gain.dtype) * factor * gain, x)
