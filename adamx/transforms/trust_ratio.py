# SPDX-License-Identifier: Apache-2.0
"""LAMB's trust ratio: the one part of the family that is not elementwise."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamx.core import dtypes, hyperparameters, norms, paths, shards
from adamx.core.compiled import compiled
from adamx.core.instances import is_none
from adamx.core.norms import mapped_axes
from adamx.core.per_leaf import leafwise
from adamx.core.values import value
from adamx.landing import Nearest


def scale_by_trust_ratio(
    min_norm: ArrayLike = 0.0,
    trust_coefficient: ArrayLike = 1.0,
    eps: ArrayLike = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each leaf's update to the norm of its parameter.

    .. math:: u \leftarrow u \cdot \gamma \, \|p\| / (\|u\| + \varepsilon)

    A leaf whose parameter or update is all zeros keeps its update.

    Args:
      min_norm: a lower bound for both norms.
      trust_coefficient: :math:`\gamma`.
      eps: added to the update's norm.
      axis_name: the mapped axis along which leaves are sharded, if they are: norms are then
        taken over all shards.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> link = scale_by_trust_ratio()
      >>> params, updates = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
      >>> print(link.update(updates, link.init(params), params)[0])
      [0. 5.]

    References:
      You et al., `Large Batch Optimization for Deep Learning
      <https://arxiv.org/abs/1904.00962>`_, 2019.
    """
    link = TrustRatio(min_norm, trust_coefficient, eps, mapped_axes.names(axis_name))
    return compiled(Nearest(link), ())


@value
class TrustRatio:
    """As `scale_by_trust_ratio`, for the inside of a recipe: emits at least float32."""

    min_norm: ArrayLike = 0.0
    trust_coefficient: ArrayLike = 1.0
    eps: ArrayLike = 0.0
    axis_name: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = {k: getattr(self, k) for k in ("min_norm", "trust_coefficient", "eps")}
        hyperparameters.check(**given)
        hyperparameters.check_static(**given)

    def init(self, params: optax.Params) -> Any:
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        params = paths.needed(updates, params, "the trust ratio")
        scalars = {"floor": self.min_norm, "gain": self.trust_coefficient, "small": self.eps}

        def one(name: str, u: Any, p: Any) -> Any:
            if u is None:
                return None
            return _scaled((shards.masked(name, u), p), scalars, self.axis_name)

        return paths.mapped(one, updates, params, is_leaf=is_none), state


@leafwise
def _scaled(
    arrays: tuple[jax.Array, jax.Array], scalars: dict[str, Any], axis_name: Any
) -> jax.Array:
    u, p = arrays
    u = dtypes.widen(u)
    real = dtypes.real(u.dtype)
    floor, gain, small = (
        hyperparameters.rounded(scalars[k], real) for k in ("floor", "gain", "small")
    )
    p_norm = norms.leaf_norm(p, axis_name=axis_name).astype(floor.dtype)
    u_norm = norms.leaf_norm(u, axis_name=axis_name)
    p_norm, u_norm = jnp.maximum(p_norm, floor), jnp.maximum(u_norm, floor)
    zero = (p_norm == 0) | (u_norm == 0)
    ratio = jnp.where(zero, 1, gain * p_norm / jnp.where(zero, 1, u_norm + small))
    return ratio.astype(u.dtype) * u
