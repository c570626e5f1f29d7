# SPDX-License-Identifier: Apache-2.0
"""A link that averages gradients, for chains that run inside `pmap` and `shard_map`."""

from typing import Any

import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import DTypeLike

from adamx.core import paths, shards
from adamx.core.norms import mapped_axes
from adamx.core.norms.mapped_axes import AxisName
from adamx.parallel.collectives import average, check_dtype


def average_gradients(
    axis_name: AxisName, dtype: DTypeLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """Averages gradients over the devices of a mapped axis.

    Args:
      axis_name: the axis, or several.
      dtype: the dtype in which gradients are sent, such as `"bfloat16"`; None for their own. They
        are returned in their own dtype.

    Returns:
      A transformation without state.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> opt = optax.chain(average_gradients("data"), optax.sgd(1.0))
      >>> step = lambda g: opt.update(g, opt.init(g))[0]
      >>> print(jax.vmap(step, axis_name="data")(jnp.array([1.0, 3.0])))
      [-2. -2.]
    """
    check_dtype("dtype", dtype)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params, extra
        if shards.axis_name() in mapped_axes.axes(axis_name).names:
            raise ValueError(
                f"average_gradients({shards.axis_name()!r}): with ZeRO gradients are averaged "
                "before the optimizer sees them: leave this link out"
            )
        for path, leaf in paths.flatten(updates)[0]:
            _check(paths.name(path), leaf, axis_name)
        return average(updates, axis_name, dtype), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _check(name: str, leaf: Any, axis_name: AxisName) -> None:
    """Raises if JAX has already summed the gradients: their mean would be that sum."""
    for axis in mapped_axes.axes(axis_name).names:
        tracked = axis in mapped_axes.varying(lax.axis_index(axis))
        if tracked and axis not in mapped_axes.varying(jnp.asarray(leaf)):
            raise ValueError(
                f"{name}: the gradient does not vary over {axis!r}. With `check_vma=True` JAX sums "
                "gradients with respect to replicated arrays: differentiate with respect to "
                f"`jax.lax.pcast(params, {axis!r}, to='varying')`, or leave this link out if the "
                "loss is already averaged by `pmean`"
            )
