# SPDX-License-Identifier: Apache-2.0
"""The float32 weights: half-precision parameters plus their landing's remainder."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from adamx.core import dtypes, paths
from adamx.core.arithmetic import straight
from adamx.core.host_memory import on_device
from adamx.core.instances import instances
from adamx.core.per_leaf import leafwise
from adamx.core.snapshots import Snapshot
from adamx.landing import split_words
from adamx.landing.float_words import HALVES
from adamx.landing.kahan import weight as compensated
from adamx.landing.transform import WIDENED, LandingState


def master_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The most precise float32 weights known: parameters plus their landing's remainder.

    Args:
      state: an optimizer's state, with a landing's state anywhere in it.
      params: the parameters of that step.

    Returns:
      A tree like `params`, bfloat16 and float16 leaves in float32, the others as they are.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adam(1e-4, landing="exact")
      >>> params = jnp.ones(1, jnp.bfloat16)
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> print(updates, adamx.master_params(state, params))
      [0.] [0.9999]
    """
    found = remainders(state)
    leaves, treedef = paths.flatten(params)
    there = dict(leaves)
    for path, remainder in found.items():
        name = paths.name(path)
        if path not in there:
            raise ValueError(f"{name}: the state has a remainder for this leaf, `params` lacks it")
        p = there[path]
        if jnp.shape(p) != remainder.shape or dtypes.of(p) not in HALVES:
            raise ValueError(
                f"{name}: the state's remainder is for a half-precision parameter of shape "
                f"{remainder.shape}, got {dtypes.of(p)} of shape {jnp.shape(p)}. {WIDENED}"
            )
    return treedef.unflatten([_weight(p, found.get(path)) for path, p in leaves])


def remainders(state: optax.OptState) -> dict[KeyPath, jax.Array]:
    """All remainders in `state`, by the path of their parameter."""
    found: dict[KeyPath, jax.Array] = {}
    for landing in instances(state, LandingState, Snapshot):
        if isinstance(landing, Snapshot):  # whose remainder is of other parameters
            continue
        for path, remainder in paths.flatten(landing.remainder)[0]:
            if path in found:
                raise ValueError(
                    f"{paths.name(path)}: two landings in the state hold a remainder for this leaf"
                )
            found[path] = remainder
    return found


def _weight(p: Any, remainder: jax.Array | None) -> Any:
    if getattr(p, "dtype", None) not in HALVES:
        return p
    return weight_leaf(on_device((p, remainder)), {})


@leafwise
def weight_leaf(arrays: tuple, scalars: Any) -> jax.Array:
    """The float32 weight of one half-precision leaf: `(p, remainder)`."""
    p, remainder = arrays
    p = jnp.asarray(p)
    plain = p.astype(jnp.float32)
    if remainder is None:
        return plain
    whole = split_words.weight if jnp.issubdtype(remainder.dtype, jnp.integer) else compensated
    return straight(whole(p, remainder), plain)
