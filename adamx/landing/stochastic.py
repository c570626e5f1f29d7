# SPDX-License-Identifier: Apache-2.0
"""Landing by stochastic rounding, which keeps the parameter's expectation exact."""

from adamx.core.random_bits import Seed
from adamx.landing import split_words
from adamx.landing.transform import Link, link


def stochastic(seed: Seed = 0) -> Link:
    """Rounds a half-precision parameter plus its step stochastically, and keeps no remainder.

    No step is lost on average; each adds noise of up to one unit in the parameter's last place.

    Args:
      seed: the seed of the rounding noise.

    Returns:
      The last link of a chain; its updates are float32.

    Example:
      >>> import adamx, optax, jax.numpy as jnp
      >>> opt = optax.chain(optax.sgd(2.0**-10), adamx.landing.stochastic())
      >>> params = jnp.ones(10_000, jnp.bfloat16)
      >>> updates, state = opt.update(-params, opt.init(params), params)
      >>> print(f"{updates.mean() * 2**10:.1f} {updates.max() * 2**10:.0f}")
      1.0 8
    """
    return link("stochastic", split_words.land, seed=seed)
