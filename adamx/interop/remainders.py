# SPDX-License-Identifier: Apache-2.0
"""What half-precision parameters cannot hold of float32 weights, put into their landing's state.

The step from the rounded weight to the weight itself is an exact float32. So the landing that a
remainder belongs to, which its dtype tells, takes that step.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core import dtypes, paths
from adamx.landing import LandingState, compensated8, exact, kahan


def landed(params: Any, state: Any, weights: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parameters and state whose master weights are `weights`, as nearly as the landing can.

    `params` are the weights rounded to the parameters' dtypes, and `state` is new.
    """
    leaves, treedef = paths.flatten(params)
    now = {paths.name(path): leaf for path, leaf in leaves}

    def one(x: Any) -> Any:
        return _filled(x, now, weights) if isinstance(x, LandingState) else x

    state = jax.tree.map(one, state, is_leaf=lambda x: isinstance(x, LandingState))
    return treedef.unflatten(list(now.values())), state


def placed(x: jax.Array, like: Any) -> jax.Array:
    """`x` where `like`, an array or a shape, lies; wherever JAX likes if that lies nowhere."""
    sharding = getattr(like, "sharding", None)
    return jax.device_put(x, sharding) if sharding and getattr(like, "committed", True) else x


def _filled(state: LandingState, now: dict[str, Any], weights: Mapping[str, Any]) -> LandingState:
    """The state with remainders; the parameters in `now` become those that go with them."""
    held, treedef = paths.flatten(state.remainder)
    names = [paths.name(path) for path, _ in held]
    remainders = []
    for name, (_, old) in zip(names, held, strict=True):
        p, link = {name: now[name]}, _landing(old.dtype)
        steps = {name: _step(weights[name], now[name])}
        updates, made = link.update(steps, link.init(p), p)
        now[name] = (now[name].astype(jnp.float32) + updates[name]).astype(now[name].dtype)
        remainders.append(placed(made.remainder[name], old))
    return state._replace(remainder=treedef.unflatten(remainders))


def _step(weight: Any, p: jax.Array) -> jax.Array:
    whole = dtypes.cast(dtypes.widen(np.asarray(weight)), jnp.dtype(jnp.float32))
    return placed(whole, p) - p.astype(jnp.float32)


def _landing(remainder: jnp.dtype) -> Any:
    if jnp.issubdtype(remainder, jnp.integer):
        return exact() if remainder.itemsize == 2 else compensated8()
    return kahan()
