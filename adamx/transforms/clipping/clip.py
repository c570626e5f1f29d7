# SPDX-License-Identifier: Apache-2.0
"""Gradient clipping that no magnitude breaks: by value, leaf norm, global norm, RMS, and AGC.

Every bound is a number, a scalar array, a traced value or a schedule of the step (from 0), with
which the state is Optax's `ScaleByScheduleState`, else empty; `update(..., max_norm=x)`, by the
name of the bound, overrides it for one call. Arithmetic is float32 (float64 for float64), the dtype
stays the gradient's. What is not finite stays visible: inf stays inf (what shares its norm vanishes
beside it), and NaN makes NaN of all that shares its norm. `axis_name`: see `shards`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.dtypes import by_part, of, real, working
from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes, scaled
from adamx.core.norms.mapped_axes import AxisName
from adamx.transforms.clipping.bounded import bounded
from adamx.transforms.clipping.shrink import Scale, scale_to, shrunk, times


def clip(max_delta: Hyper) -> optax.GradientTransformationExtraArgs:
    r"""Clips each element, or each part of a complex one, to [-max_delta, max_delta].

    .. math:: g \leftarrow \operatorname{sign}(g) \min(|g|, \delta)

    Args:
      max_delta: the bound :math:`\delta`.

    Returns:
      A transformation. An infinite element stays infinite, where Optax's becomes `max_delta`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(clip(1.0).update(jnp.array([0.5, -3.0]), optax.EmptyState())[0])
      [ 0.5 -1. ]
    """
    return bounded(_clipped_values, {"max_delta": max_delta})


def clip_by_leaf_norm(
    max_norm: Hyper, *, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each leaf whose norm is larger than `max_norm` down to it.

    .. math:: g_i \leftarrow g_i \min(1, c / \|g_i\|)

    Args:
      max_norm: the largest norm :math:`c` of a leaf.
      axis_name: the mapped axes along which gradients are sharded.

    Returns:
      A transformation.

    Example:
      >>> import jax.numpy as jnp
      >>> print(clip_by_leaf_norm(5.0).update(jnp.array([3e20, 4e20]), optax.EmptyState())[0])
      [3. 4.]
    """
    return bounded(
        _clipped_leaves, {"max_norm": max_norm}, {"axis_name": mapped_axes.names(axis_name)}
    )


def clip_by_global_norm(
    max_norm: Hyper, *, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scales the whole gradient down to `max_norm` where its norm is larger.

    .. math:: g_i \leftarrow g_i \min\bigl(1, c / \sqrt{\textstyle\sum_j \|g_j\|^2}\bigr)

    Args:
      max_norm: the largest norm :math:`c` of all leaves together.
      axis_name: the mapped axes along which gradients are sharded.

    Returns:
      A transformation.

    Example:
      >>> import jax.numpy as jnp
      >>> grads = {"a": jnp.float16(3e4), "b": jnp.float16(4e4)}
      >>> print(clip_by_global_norm(5.0).update(grads, optax.EmptyState())[0])
      {'a': Array(3., dtype=float16), 'b': Array(4., dtype=float16)}

    References:
      Pascanu et al., `On the difficulty of training Recurrent Neural Networks
      <https://arxiv.org/abs/1211.5063>`_, 2012.
    """
    return bounded(
        _clipped_whole,
        {"max_norm": max_norm},
        {"axis_name": mapped_axes.names(axis_name)},
        common=_common_scale,
    )


def clip_by_block_rms(
    threshold: Hyper, *, axis_name: AxisName | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each leaf whose root mean square is larger than `threshold` down to it.

    .. math:: g_i \leftarrow g_i / \max(1, \mathrm{RMS}(g_i) / d)

    Args:
      threshold: the largest root mean square :math:`d` of a leaf. One call overrides it as
        `max_rms`, since RAdam has a `threshold` too.
      axis_name: the mapped axes along which gradients are sharded.

    Returns:
      A transformation.

    Example:
      >>> import jax.numpy as jnp
      >>> print(clip_by_block_rms(1.0).update(jnp.array([1.0, 7.0]), optax.EmptyState())[0])
      [0.2 1.4]

    References:
      Shazeer and Stern, `Adafactor <https://arxiv.org/abs/1804.04235>`_, 2018, section 6.
    """
    return bounded(
        _clipped_blocks,
        {"threshold": threshold},
        {"axis_name": mapped_axes.names(axis_name)},
        needs_names=True,
        override="max_rms",
    )


def _clipped_values(leaves: list, max_delta: Any) -> list:
    return [_clamped(x, max_delta) for x in leaves]


def _clipped_leaves(leaves: list, max_norm: Any, axis_name: Any) -> list:
    pairs = zip(leaves, scaled.leaf_norms(leaves, axis_name), strict=True)
    return [shrunk(x, norm, max_norm) for x, norm in pairs]


def _clipped_whole(leaves: list, max_norm: Any, axis_name: Any) -> list:
    scale = _common_scale(leaves, max_norm, axis_name)
    return [times(x, scale) for x in leaves]


def _common_scale(leaves: list, max_norm: Any, axis_name: Any) -> Scale:
    return scale_to(scaled.global_norm(leaves, axis_name), max_norm)


def _clipped_blocks(leaves: list, names: list, threshold: Any, axis_name: Any) -> list:
    pairs = zip(names, leaves, strict=True)
    counts = [max(1, mapped_axes.size(name, x, axis_name)) for name, x in pairs]
    rows = zip(leaves, scaled.leaf_norms(leaves, axis_name), counts, strict=True)
    return [shrunk(x, (r / math.sqrt(n), factor), threshold) for x, (r, factor), n in rows]


@jax.jit
def _clamped(x: jax.Array, bound: Any) -> jax.Array:
    def clamp(part: jax.Array) -> jax.Array:
        part = part.astype(real(working(of(x))))
        most = jnp.asarray(bound).astype(part.dtype)
        over = jnp.isfinite(part) & (jnp.abs(part) > most)
        return jnp.where(over, jnp.sign(part) * most, part)

    return by_part(clamp, x)
