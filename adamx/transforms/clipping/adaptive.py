# SPDX-License-Identifier: Apache-2.0
"""Clipping by what is usual: the bound of the global norm comes from the norms before."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core.compiled import compiled
from adamx.core.hyperparameters import check, check_count, check_static
from adamx.core.norms import mapped_axes, scaled
from adamx.core.norms.mapped_axes import AxisName
from adamx.core.rows import check_state
from adamx.core.values import value
from adamx.transforms.clipping.bounded import gradients
from adamx.transforms.clipping.shrink import scale_to, times


class ZScoreState(NamedTuple):
    """The state of `clip_by_zscore`.

    Attributes:
      looks: how many norms were seen.
      mean, deviation: of the norms as they were let pass.
    """

    looks: jax.Array
    mean: jax.Array
    deviation: jax.Array


def clip_by_zscore(
    z_max: float = 2.5,
    decay: float = 0.97,
    warmup: int = 25,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales down a gradient whose global norm lies far above the mean of late: ZClip.

    .. math:: z = (\|g\| - \mu) / \sigma > z_{\max}: \quad
        \|g\| \leftarrow \mu + \sigma z_{\max}^2 / z

    the farther above, the nearer to the mean. Then the mean and the deviation take in the norm
    that was let pass.

    Args:
      z_max: from how many deviations on.
      decay: of the running averages.
      warmup: how many steps only learn, in plain averages.
      axis_name: the mapped axes along which gradients are sharded.

    Example:
      >>> import jax.numpy as jnp
      >>> link = clip_by_zscore(warmup=2)
      >>> state = link.init(None)
      >>> for size in (1.0, 3.0, 100.0):
      ...     clipped, state = link.update(jnp.array([size]), state)
      >>> print(clipped)
      [2.0637755]

    References:
      Kumar et al., `ZClip <https://arxiv.org/abs/2504.02507>`_, 2025.
    """
    check_static(z_max=z_max, decay=decay)
    check(z_max=z_max)
    if not z_max > 0:
        raise ValueError(f"`z_max` must be > 0, got {z_max}")
    if not 0 <= decay < 1:
        raise ValueError(f"`decay` must be in [0, 1), got {decay}")
    check_count(warmup=warmup)

    return _clip(ZScore(z_max, decay, warmup), axis_name)


@value
class ZScore:
    """The bound of `clip_by_zscore`."""

    z_max: float
    decay: float
    warmup: int

    def init(self) -> ZScoreState:
        mean, deviation = (jnp.zeros([], jnp.float32) for _ in range(2))
        return ZScoreState(jnp.zeros([], jnp.int32), mean, deviation)

    def bound(self, norm: jax.Array, state: Any) -> tuple[jax.Array, ZScoreState]:
        check_state("clip_by_zscore", state, ZScoreState)
        looks, mean, deviation = state
        above = norm - mean
        known = (looks >= self.warmup) & (deviation > 0)
        z = above / jnp.where(known, deviation, 1)
        spike = known & (z > self.z_max)
        passed = jnp.where(spike, mean + deviation * self.z_max**2 / jnp.where(spike, z, 1), norm)
        share = jnp.where(looks < self.warmup, 1 / (looks.astype(jnp.float32) + 1), 1 - self.decay)
        # At first the root of (x - old mean)(x - new mean), for the variance of those seen; then
        # ZClip's own x - new mean.
        rest = 1 - share
        off = (passed - mean) * jnp.where(looks < self.warmup, jnp.sqrt(rest), rest)
        spread = jnp.hypot(jnp.sqrt(rest) * deviation, jnp.sqrt(share) * off)
        seen = jnp.isfinite(norm)
        after = ZScoreState(looks + 1, mean + share * (passed - mean), spread)
        state = ZScoreState(*(jnp.where(seen, a, b) for a, b in zip(after, state, strict=True)))
        return jnp.where(seen, passed, mean + deviation), state


class PercentileState(NamedTuple):
    """The state of `clip_by_percentile`.

    Attributes:
      norms: the last of them; -1 where there was none yet.
    """

    norms: jax.Array


def clip_by_percentile(
    percentile: float = 10.0, history: int = 1000, *, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scales the gradient down to a percentile of its global norms of late: AutoClip.

    .. math:: \|g\| \leftarrow \min(\|g\|, P_p(\|g_{t-h+1}\|, \dots, \|g_t\|))

    Args:
      percentile: of the norms before clipping; 10 clips nine gradients of ten.
      history: of how many steps; the paper keeps all.
      axis_name: the mapped axes along which gradients are sharded.

    Example:
      >>> import jax.numpy as jnp
      >>> link = clip_by_percentile(50.0)
      >>> state = link.init(None)
      >>> for size in (1.0, 2.0, 100.0):
      ...     clipped, state = link.update(jnp.array([size]), state)
      >>> print(clipped)
      [2.]

    References:
      Seetharaman et al., `AutoClip <https://arxiv.org/abs/2007.14469>`_, 2020.
    """
    check_static(percentile=percentile)
    check(percentile=percentile)
    if not 0 <= percentile <= 100:
        raise ValueError(f"`percentile` must be in [0, 100], got {percentile}")
    check_count(history=history)

    return _clip(Percentile(percentile, history), axis_name)


@value
class Percentile:
    """The bound of `clip_by_percentile`."""

    percentile: float
    history: int

    def init(self) -> PercentileState:
        return PercentileState(jnp.full(self.history, -1, jnp.float32))

    def bound(self, norm: jax.Array, state: Any) -> tuple[jax.Array, PercentileState]:
        check_state("clip_by_percentile", state, PercentileState)
        seen = jnp.isfinite(norm)
        norms = jnp.where(seen, jnp.append(state.norms[1:], norm), state.norms)
        most = _percentile(norms, self.percentile / 100)
        return jnp.where(jnp.any(norms >= 0), most, norm), PercentileState(norms)


def _percentile(x: jax.Array, share: float) -> jax.Array:
    """Of the elements that are not negative, interpolated."""
    place = share * (jnp.sum(x >= 0) - 1).astype(jnp.float32)
    below, ordered = jnp.floor(place), jnp.sort(jnp.where(x >= 0, x, jnp.finfo(x.dtype).max))
    low, high = (ordered[i.astype(jnp.int32)] for i in (below, jnp.ceil(place)))
    return low + (place - below) * (high - low)


def _clip(bound: Any, axis_name: AxisName | None) -> optax.GradientTransformationExtraArgs:
    return compiled(ClipTo(bound, mapped_axes.names(axis_name)), ())


@value
class ClipTo:
    """The link that scales gradients down to `bound.bound(norm, state)`."""

    bound: Any
    axis_name: tuple[str, ...] | None

    def init(self, params: optax.Params) -> Any:
        del params
        return self.bound.init()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params, extra
        leaves, treedef = gradients(updates)
        norm = scaled.global_norm(leaves, self.axis_name)
        most, state = self.bound.bound((norm.root / norm.factor).astype(jnp.float32), state)
        scale = scale_to(norm, most)
        return treedef.unflatten([times(x, scale) for x in leaves]), state
