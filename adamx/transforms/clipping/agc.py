# SPDX-License-Identifier: Apache-2.0
"""Adaptive gradient clipping: each unit's gradient is bounded by the norm of its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import shards
from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes, scaled
from adamx.core.norms.mapped_axes import AxisName
from adamx.core.norms.scaled import Axes, Scaled
from adamx.transforms.clipping.bounded import bounded
from adamx.transforms.clipping.shrink import shrunk


def adaptive_grad_clip(
    clipping: Hyper,
    eps: Hyper = 1e-3,
    axis: int | tuple[int, ...] | None = None,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each unit's gradient down to a fraction of the norm of its parameters (AGC).

    .. math:: G_u \leftarrow G_u \min\bigl(1,
        \lambda \max(\|W_u\|, \varepsilon) / \|G_u\|\bigr)

    What a unit :math:`u` is follows from the axes that its norm sums along. By default these are

    ====================================================  ========
    scalar, or at most one axis longer than 1             all axes
    rank 2 and 3: dense kernels (in, out), (in, heads, …)  0
    rank 4: convolutions (H, W, in, out)                  0, 1, 2
    rank 5: convolutions (D, H, W, in, out)               0 to 3
    ====================================================  ========

    Args:
      clipping: the largest ratio :math:`\lambda` of the two norms. One call may override it.
      eps: a lower bound for parameter norms, so that parameters that start at zero can move.
      axis: the axes of a norm in place of the convention, the same for every leaf. Mask with
        `optax.masked` or `optax.partition` where leaves differ.
      axis_name: the mapped axes that cut the axes of a norm, in gradients and parameters alike
        (see `adamx.norms.shards`). Where shards only part units from each other, leave it out.

    Returns:
      A transformation; its `update` needs the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> link, params = adaptive_grad_clip(0.1), jnp.array([3.0, 4.0])
      >>> print(link.update(jnp.array([0.0, 2.0]), link.init(params), params)[0])
      [0.  0.5]

    References:
      Brock et al., `High-Performance Large-Scale Image Recognition Without Normalization
      <https://arxiv.org/abs/2102.06171>`_, 2021.
    """
    axes = (axis,) if isinstance(axis, int) else axis
    if axes is not None and not (isinstance(axes, tuple) and all(map(_is_int, axes))):
        raise TypeError(f"`axis` must be None, an int or a tuple of ints, got {axis!r}")

    options = {"axes": axes, "axis_name": mapped_axes.names(axis_name)}
    bounds = {"clipping": clipping, "eps": eps}
    return bounded(_clipped_units, bounds, options, needs_params="adaptive_grad_clip")


def _clipped_units(
    leaves: list, params: list, names: list, clipping: Any, eps: Any, axes: Axes, axis_name: Any
) -> list:
    units, alongs = [], []
    for name, g in zip(names, leaves, strict=True):
        is_shard = axis_name is not None and mapped_axes.pieces(g, axis_name) > 1
        units.append(_unit_axes(name, shards.whole(name, jnp.shape(g)), axes, is_shard=is_shard))
        alongs.append(_along(name, units[-1], axis_name))
    clipped = list(leaves)
    for along in dict.fromkeys(alongs):
        chosen = [i for i, a in enumerate(alongs) if a == along]
        arrays = [tree[i] for tree in (leaves, params) for i in chosen]
        norms = scaled.leaf_norms(arrays, along, [units[i] for i in chosen] * 2)
        for i, g_norm, p_norm in zip(chosen, norms, norms[len(chosen) :], strict=False):
            clipped[i] = _clipped(leaves[i], g_norm, p_norm, clipping, eps)
    return clipped


@jax.jit
def _clipped(g: Any, g_norm: Scaled, p_norm: Scaled, clipping: Any, eps: Any) -> Any:
    dtype = g_norm.root.dtype
    size = (p_norm.root / p_norm.factor).astype(dtype)
    clipping, eps = (jnp.asarray(x).astype(dtype) for x in (clipping, eps))
    bound = clipping * jnp.maximum(size, eps)
    return shrunk(g, g_norm, bound)


def _along(name: str, unit: tuple[int, ...], axis_name: AxisName | None) -> AxisName | None:
    """The mapped axes that cut units: the given ones, or what is known of the leaf's own cut."""
    if axis_name is not None:
        return axis_name
    return None if shards.dim(name) in unit else ()


def _unit_axes(name: str, shape: tuple[int, ...], axes: Axes, *, is_shard: bool) -> tuple[int, ...]:
    """The axes along which a unit's norm sums; Optax's convention by default."""
    rank = len(shape)
    if axes is not None:
        if not all(-rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
            raise ValueError(f"{name}: `axis` {axes} does not fit a gradient of shape {shape}")
        return tuple(a % rank for a in axes)
    if sum(n != 1 for n in shape) <= 1:
        if is_shard and rank > 1:
            raise ValueError(
                f"{name}: `axis` must be given, as a shard of shape {shape} does not tell whether "
                "its array is one unit"
            )
        return tuple(range(rank))
    if rank > 5:
        raise ValueError(
            f"{name}: `axis` must be given from rank 6 on, got a gradient of shape {shape}"
        )
    return tuple(range(max(1, rank - 1))) if rank > 3 else (0,)


def _is_int(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)
