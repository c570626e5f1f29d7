# SPDX-License-Identifier: Apache-2.0
"""Collectives for gradients, on real arrays only: complex collectives crash XLA:CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from adamx.core import dtypes
from adamx.parallel.loss import is_mean


def check_dtype(name: str, dtype: DTypeLike | None) -> None:
    """Raises if gradients can't be sent in a dtype."""
    if dtype is not None and not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"`{name}` must be floating point, got {jnp.dtype(dtype).name}")


def sent(g: jax.Array, dtype: DTypeLike | None) -> jax.Array:
    """A real gradient as it is sent: in `dtype`, by default its own. Float16 is sent as float32,
    since its sum can overflow where the mean does not."""
    if g.dtype == jnp.float16 and dtype is None:
        return g.astype(jnp.float32)
    return g if dtype is None else g.astype(dtype)


def average(tree: Any, axis_name: Any, dtype: DTypeLike | None = None) -> Any:
    """The mean over a mapped axis, sent in `dtype`; leaves keep their own dtype."""

    def mean(x: jax.Array) -> jax.Array:
        return lax.pmean(sent(x, dtype), axis_name)

    return jax.tree.map(lambda x: dtypes.by_part(mean, jnp.asarray(x)), tree)


def reduced(tree: Any, axis_name: str, whole_numbers: Any) -> Any:
    """Arrays reduced over a mapped axis: floats to their mean, booleans to whether any is true,
    integers by `whole_numbers`. PRNG keys are equal on all devices."""

    def one(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = lax.pmax(jax.random.key_data(x), axis_name)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        if x.dtype == jnp.bool_:
            return lax.pmax(x.astype(jnp.int32), axis_name) > 0
        if is_mean(x):
            return dtypes.by_part(lambda part: lax.pmean(part, axis_name), x)
        return whole_numbers(x, axis_name)

    return jax.tree.map(one, tree)
