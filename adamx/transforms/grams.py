# SPDX-License-Identifier: Apache-2.0
"""Grams: Cao et al., 2024, arXiv 2412.17107. The gradient says where to, momentum how far."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes
from adamx.core.arithmetic import magnitude
from adamx.core.per_leaf import leafwise
from adamx.core.values import value
from adamx.transforms.directions import Way, with_change


def grams(
    opt: optax.GradientTransformation, *, updates: Way | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer whose steps have its own sizes and the signs of this step's gradients.

    .. math:: u \leftarrow |u| \, \mathrm{sign}(g)

    In a recipe of ours `u` is the rule's direction, before decay; the state is the recipe's own.
    For: lower losses than AdamW, Lion and cautious AdamW in its paper, in models of up to a billion
    parameters. Against: no comparison by others is known to us, and the noise of a single batch,
    which momentum averages, decides every sign.

    Args:
      opt: a recipe or a `scale_by_*` of ours, or any transformation.
      updates: needed where `opt` is not ours: `"uphill"` if its updates point along gradients, as
        those of `scale_by_*`, `"downhill"` if they are added to parameters.

    Example:
      >>> import adamx
      >>> opt = adamx.grams(adamx.adamw(1e-3, weight_decay=0.1))

    References:
      Cao et al., `Grams <https://arxiv.org/abs/2412.17107>`_, 2024.
    """
    return with_change("grams", opt, Grams(), updates)


@value
class Grams:
    """The sizes of directions with the signs of gradients."""

    def __call__(self, directions: Any, gradients: Any) -> Any:
        leaves, treedef = jax.tree.flatten(gradients)
        found = treedef.flatten_up_to(directions)
        return treedef.unflatten([_signed(row, {}) for row in zip(found, leaves, strict=True)])


@leafwise
def _signed(arrays: tuple[Any, Any], scalars: Any) -> jax.Array:
    u, g = (jnp.asarray(x) for x in arrays)
    u = dtypes.widen(u)
    sign = jnp.sign(g.astype(dtypes.working(g.dtype)))
    return magnitude(u).astype(u.dtype) * sign.astype(u.dtype)
