# SPDX-License-Identifier: Apache-2.0
"""Landing with a one-byte remainder: eight more bits for a half-precision parameter."""

from typing import Any

import jax.numpy as jnp

from adamx.core.random_bits import Seed
from adamx.landing import split_words
from adamx.landing.transform import Link, link


def compensated8(seed: Seed = 0) -> Link:
    """Keeps a half-precision parameter's remainder in an int8, in 1/256 of its last place.

    The remainder is rounded stochastically: steps far below its resolution are taken on average,
    where rounding to nearest would lose them. A parameter that is changed from outside keeps its
    remainder, which is at most half a unit in its last place.

    Args:
      seed: the seed of the rounding noise.

    Returns:
      The last link of a chain; its updates are float32.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adamw(1e-3, landing="compensated8")
      >>> opt.init(jnp.ones(3, jnp.bfloat16))[-1].remainder
      Array([0, 0, 0], dtype=int8)
    """
    return link("compensated8", split_words.land, remainder=_int8, seed=seed)


def _int8(dtype: jnp.dtype) -> Any:
    return jnp.int8
