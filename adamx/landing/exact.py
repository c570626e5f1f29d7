# SPDX-License-Identifier: Apache-2.0
"""Landing exactly: a half-precision parameter and 16 bits of remainder are one float32 weight."""

from typing import Any

import jax.numpy as jnp

from adamx.landing import split_words
from adamx.landing.transform import Link, link


def exact() -> Link:
    """Keeps float32 weights in a half-precision parameter and an int16, 4 bytes in all.

    With the same gradients and compiled alike (update and `apply_updates` in one `jit`, as in
    `adamx.step`), a bfloat16 run of a recipe follows a float32 run bit for bit, but for the last
    bit of a step where the compiler fuses a multiplication into an addition in one of the two.
    The parameter is the weight's upper half to nearest, the remainder its lower half. A float16
    run does so for weights of at least 2^-17; smaller ones are kept to 2^-41. In `optax.chain`
    the links before it, such as weight decay, see the parameter instead of the weight.

    A parameter that is changed from outside keeps its remainder, which is at most half a unit in
    its last place.

    Returns:
      The last link of a chain; its updates are float32.

    Example:
      >>> import adamx, optax, jax.numpy as jnp
      >>> opt = optax.chain(optax.sgd(2.0**-20), adamx.landing.exact())
      >>> params = jnp.ones(1, jnp.bfloat16)
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> print(updates, state[-1].remainder, adamx.master_params(state, params) == 1 - 2.0**-20)
      [0.] [-16] [ True]
    """
    return link("exact", split_words.land, remainder=_int16)


def _int16(dtype: jnp.dtype) -> Any:
    return jnp.int16
