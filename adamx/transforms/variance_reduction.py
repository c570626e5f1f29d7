# SPDX-License-Identifier: Apache-2.0
"""MARS's correction of gradients, for any rule behind it: Yuan et al., 2024, arXiv 2411.10438."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import dtypes, hyperparameters, norms, paths, shards
from adamx.core.arithmetic import saturated, times, weights
from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_state
from adamx.core.values import value
from adamx.landing import Nearest


def reduce_variance(
    gamma: Hyper = 0.025,
    b1: Hyper = 0.95,
    max_norm: Hyper | None = 1.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
    previous_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds to gradients a part of their change since the last step, as MARS does before its rule.

    .. math:: c_t = g_t + \gamma \, \frac{\beta_1}{1 - \beta_1} (g_t - g_{t-1}), \quad
        u \leftarrow c_t / \max(1, \|c_t\|)

    This is the approximate form, without a second gradient of the same batch. Each leaf is clipped
    by its own norm. The first step has no gradient before it, and no change.

    Args:
      gamma: the strength of the correction.
      b1: that of the rule behind.
      max_norm: the largest norm of a leaf; None clips nothing.
      axis_name: the mapped axis along which leaves are sharded, if they are: norms are then taken
        over all shards.
      previous_dtype: the dtype in which the last gradient is stored. None takes the parameter's, at
        least float32; complex leaves stay complex.

    Returns:
      A transformation whose state counts steps and holds the last gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> link = reduce_variance(gamma=0.1, b1=0.5, max_norm=None)
      >>> state = link.init(jnp.zeros(1))
      >>> _, state = link.update(jnp.array([1.0]), state)
      >>> print(link.update(jnp.array([2.0]), state)[0])
      [2.1]

    References:
      Yuan et al., `MARS <https://arxiv.org/abs/2411.10438>`_, 2024.
    """
    link = correction("reduce_variance", gamma, b1, max_norm, axis_name, previous_dtype)
    return compiled(Nearest(link), link.hyper, link.hyper.values())


def correction(
    name: str,
    gamma: Hyper,
    b1: Hyper,
    max_norm: Hyper | None,
    axis_name: str | tuple[str, ...] | None,
    previous_dtype: DTypeLike | None,
) -> "ReduceVariance":
    """The link of `reduce_variance`, for the inside of a recipe: emits at least float32."""
    axis, dtype = mapped_axes.names(axis_name), _floating(previous_dtype)
    return ReduceVariance(name, gamma, b1, max_norm, axis, dtype)


class VarianceReductionState(NamedTuple):
    """The state of `reduce_variance`.

    Attributes:
      count: how many steps were taken.
      previous: the last gradients.
    """

    count: jax.Array
    previous: Any


@value
class ReduceVariance:
    """The link that `correction` builds."""

    name: str
    gamma: Hyper
    b1: Hyper
    max_norm: Hyper | None
    axis_name: tuple[str, ...] | None
    dtype: jnp.dtype | None

    def __post_init__(self) -> None:
        hyperparameters.check(**self.hyper)

    @property
    def hyper(self) -> Mapping[str, Any]:
        """The hyperparameters by name."""
        most = {} if self.max_norm is None else {"max_norm": self.max_norm}
        return {"gamma": self.gamma, "b1": self.b1, **most}

    def init(self, params: optax.Params) -> VarianceReductionState:
        previous = jax.tree.map(self._blank, params)
        return VarianceReductionState(jnp.zeros([], jnp.int32), previous)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state(self.name, state, VarianceReductionState)
        hyper = {
            k: hyperparameters.value_at(k, v, state.count, extra) for k, v in self.hyper.items()
        }
        leaves, treedef = paths.flatten(updates)
        held = self._beside(updates, treedef, state.previous)
        corrected, kept = [], []
        for (path, g), before in zip(leaves, held, strict=True):
            c, now = self._one(paths.name(path), g, before, state.count, hyper)
            corrected.append(c)
            kept.append(now)
        count: Any = optax.safe_increment(state.count)
        state = VarianceReductionState(count, treedef.unflatten(kept))
        return treedef.unflatten(corrected), state

    def _one(self, name: str, g: Any, before: Any, count: jax.Array, hyper: Any) -> Any:
        """The corrected gradient of a leaf, and the gradient as it is stored."""
        self._check(name, g, before)
        dtype = dtypes.real(dtypes.working(dtypes.of(g), before.dtype))
        exact = {k: hyperparameters.exact(v, dtype) for k, v in hyper.items()}
        b1, c1 = weights(exact["b1"], jnp.ones((), dtype))
        scalars = {"strength": exact["gamma"] * b1 / c1, "later": count > 0}
        scalars |= {k: exact[k] for k in exact if k == "max_norm"}
        scalars = {k: hyperparameters.rounded(v, dtype) for k, v in scalars.items()}
        g = shards.masked(name, jnp.asarray(g))
        return _corrected((g, before), scalars, self.axis_name)

    def _beside(self, updates: Any, treedef: Any, previous: Any) -> list[Any]:
        """The last gradient of each leaf."""
        try:
            held = treedef.flatten_up_to(previous)
        except (ValueError, TypeError):
            held = None
        if held is None or paths.is_one_for_many(updates, previous):
            what = paths.difference(previous, updates, "the state's `previous`", "the gradient")
            raise ValueError(f"{self.name}: {what}")
        return held

    def _check(self, name: str, g: Any, before: Any) -> None:
        if not jnp.issubdtype(dtypes.of(g), jnp.inexact):
            raise TypeError(f"{name}: gradient is {dtypes.of(g)}, {self.name} needs floating point")
        if jnp.shape(g) != before.shape:
            raise ValueError(f"{name}: gradient has shape {jnp.shape(g)}, state has {before.shape}")
        if dtypes.is_complex(dtypes.of(g)) > jnp.iscomplexobj(before):
            raise TypeError(
                f"{name}: gradient is {dtypes.of(g)}, the state's `previous` is real "
                f"({before.dtype}) ({self.name})"
            )

    def _blank(self, p: Any) -> jax.Array:
        own = dtypes.working(dtypes.of(p))
        return jnp.full_like(p, 0, dtype=own if dtypes.is_complex(own) else self.dtype or own)


@leafwise
def _corrected(
    arrays: tuple[jax.Array, jax.Array], scalars: dict[str, Any], axis_name: Any
) -> tuple[jax.Array, jax.Array]:
    g, before = arrays
    kept, dtype = before.dtype, dtypes.working(g.dtype, before.dtype)
    # As rules hold it: a gradient that the store makes inf is NaN in every moment a step later.
    g = saturated(g.astype(dtype), dtypes.real(dtypes.working(kept)))
    change = jnp.where(scalars["later"] > 0, g - before.astype(dtype), jnp.zeros_like(g))
    c = g + times(scalars["strength"], change)
    if "max_norm" in scalars:
        c = _clipped(c, scalars["max_norm"], axis_name)
    return c, dtypes.cast(g, kept)


def _clipped(c: jax.Array, most: jax.Array, axis_name: Any) -> jax.Array:
    size = norms.leaf_norm(c, axis_name=axis_name)
    over = size > most
    return jnp.where(over, times(most / jnp.where(over, size, 1), c), c)


def _floating(dtype: DTypeLike | None) -> jnp.dtype | None:
    if dtype is None:
        return None
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
        raise ValueError(
            f"`previous_dtype` must be a floating dtype of at least 16 bits, got {dtype}"
        )
    return dtype
