# SPDX-License-Identifier: Apache-2.0
"""The running mean and deviation of a number that is measured once per step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Usual(NamedTuple):
    """Running statistics of several numbers at once, as arrays of one shape."""

    looks: jax.Array
    mean: jax.Array
    variance: jax.Array


def usual(shape: tuple[int, ...] = ()) -> Usual:
    """The statistics before the first value."""
    mean, variance = (jnp.zeros(shape, jnp.float32) for _ in range(2))
    return Usual(jnp.zeros(shape, jnp.int32), mean, variance)


def deviation(known: Usual, x: jax.Array, least: float) -> jax.Array:
    """How many standard deviations `x` is above its mean; a deviation is at least `least`."""
    return (x - known.mean) / jnp.maximum(jnp.sqrt(known.variance), least)


def learned(known: Usual, x: jax.Array, most: jax.Array, decay: float) -> Usual:
    """The statistics after one more value, clipped to `most`.

    They are plain averages at first, later over about the last 1 / (1 - decay) values. Values that
    are not finite are ignored.
    """
    seen = jnp.isfinite(x)
    x = jnp.where(seen, jnp.minimum(x, most), known.mean)
    share = jnp.maximum(1 - decay, 1 / (known.looks.astype(jnp.float32) + 1))
    off = x - known.mean
    after = Usual(
        known.looks + 1,
        known.mean + share * off,
        (1 - share) * (known.variance + share * off * off),
    )
    return Usual(*(jnp.where(seen, a, b) for a, b in zip(after, known, strict=True)))
