# SPDX-License-Identifier: Apache-2.0
"""What is usual for a number that comes once a step: its running mean and deviation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Usual(NamedTuple):
    """Of several numbers at once, arrays of one shape.

    Attributes:
      looks: how many of each were seen.
      mean: the running mean.
      variance: the running mean square of what they differ from it.
    """

    looks: jax.Array
    mean: jax.Array
    variance: jax.Array


def usual(shape: tuple[int, ...] = ()) -> Usual:
    """Before the first."""
    mean, variance = (jnp.zeros(shape, jnp.float32) for _ in range(2))
    return Usual(jnp.zeros(shape, jnp.int32), mean, variance)


def deviation(known: Usual, x: jax.Array, least: float) -> jax.Array:
    """By how many standard deviations, each taken to be `least` or more, `x` is above its mean."""
    return (x - known.mean) / jnp.maximum(jnp.sqrt(known.variance), least)


def learned(known: Usual, x: jax.Array, most: jax.Array, decay: float) -> Usual:
    """After one more of each, which counts as `most` where it is larger.

    Plain averages at first, over some 1 / (1 - decay) of the last ones later. What is not finite
    is passed over.
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
