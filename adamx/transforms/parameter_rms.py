# SPDX-License-Identifier: Apache-2.0
"""Steps in proportion to their parameters, as in Adafactor: times the root mean square of each."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, norms, paths, shards
from adamx.core.instances import is_none
from adamx.core.norms import mapped_axes
from adamx.core.per_leaf import leafwise
from adamx.core.values import value


@value
class ScaleByParameterRms:
    """Multiplies each leaf's update by `max(least, RMS(p))`, for the inside of a recipe."""

    least: float = 1e-3

    def init(self, params: optax.Params) -> Any:
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        params = paths.needed(updates, params, "the relative step")
        return paths.mapped(self._scaled, updates, params, is_leaf=is_none), state

    def _scaled(self, name: str, u: Any, p: Any) -> Any:
        if u is None:
            return None
        p = shards.masked(name, jnp.asarray(p))
        size = max(1, mapped_axes.size(name, p, None))
        return _times_rms((u, p), {"least": self.least}, size)


@leafwise
def _times_rms(arrays: tuple, scalars: dict[str, Any], size: int) -> jax.Array:
    u, p = arrays
    u = dtypes.widen(u)
    rms = norms.leaf_norm(p).astype(dtypes.real(u.dtype)) / math.sqrt(size)
    return jnp.maximum(rms, scalars["least"]).astype(u.dtype) * u
