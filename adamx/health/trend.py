# SPDX-License-Identifier: Apache-2.0
"""The trend of the gradient's norm: its drift and its autocorrelation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

FAST, SLOW = 0.9, 0.99


class Trend(NamedTuple):
    """Running averages of x, the logarithm of the norm, over some 10 and 100 observations.

    Attributes:
      looks: the number of observations.
      last: x at the last observation.
      fast, slow: averages of x.
      square: the slow average of (x - slow)^2.
      product: the slow average of (x - slow) (last - slow).
    """

    looks: jax.Array
    last: jax.Array
    fast: jax.Array
    slow: jax.Array
    square: jax.Array
    product: jax.Array


def trend() -> Trend:
    """The averages before the first observation."""
    return Trend(jnp.zeros([], jnp.int32), *(jnp.zeros([], jnp.float32) for _ in range(5)))


def followed(before: Trend, norm: jax.Array) -> Trend:
    """The averages after one more norm, which is ignored if it is zero or not finite."""
    x = jnp.log(jnp.where((norm > 0) & jnp.isfinite(norm), norm, 1))
    first = before.looks == 0
    # Plain averages at first: the first observations count as much as later ones.
    looks = before.looks.astype(jnp.float32)
    fast_share, slow_share = (jnp.maximum(1 - d, 1 / (looks + 1)) for d in (FAST, SLOW))
    fast = before.fast + fast_share * (x - before.fast)
    slow = before.slow + slow_share * (x - before.slow)
    square = before.square + slow_share * ((x - slow) ** 2 - before.square)
    product = jnp.where(first, 0, (x - slow) * (before.last - slow))
    product = before.product + slow_share * (product - before.product)
    after = Trend(before.looks + 1, x, fast, slow, square, product)
    usable = (norm > 0) & jnp.isfinite(norm)
    return Trend(*(jnp.where(usable, a, b) for a, b in zip(after, before, strict=True)))


def figures(now: Trend) -> dict[str, jax.Array]:
    """`grad_drift`, how much larger the recent norm is than the long-run norm (0.1: by a tenth),
    and `grad_autocorrelation`, from one observation to the next."""
    known = now.looks > 1
    memory = now.product / jnp.where(now.square > 0, now.square, 1)
    return {
        "grad_drift": jnp.where(known, jnp.expm1(now.fast - now.slow), jnp.nan),
        "grad_autocorrelation": jnp.where(known & (now.square > 0), memory, jnp.nan),
    }
