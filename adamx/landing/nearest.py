# SPDX-License-Identifier: Apache-2.0
"""Landing to nearest: the step stays float32 through a whole chain and is cast once, at its end."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes
from adamx.core.compiled import Change, modified, transformation
from adamx.core.values import value


def nearest(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Casts the updates of `inner` to the wider of the gradient's and the parameter's dtype.

    If both are the same, so is the update's; bfloat16 gradients of float32 parameters give float32.

    Args:
      inner: a link, or a chain of links, whose updates are at least float32.

    Returns:
      A transformation with the state of `inner`.
    """
    return transformation(Nearest(optax.with_extra_args_support(inner)))


@value
class Nearest:
    """The transformation that `nearest` builds."""

    inner: Any

    def init(self, params: optax.Params) -> Any:
        return self.inner.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        steps, state = self.inner.update(updates, state, params, **extra)
        gradients, treedef = jax.tree.flatten(updates)
        parameters = _leaves_like(treedef, params) or gradients
        landed = [
            dtypes.cast(jnp.asarray(step), dtypes.wider(dtypes.of(g), dtypes.of(p)))
            for step, g, p in zip(treedef.flatten_up_to(steps), gradients, parameters, strict=True)
        ]
        return treedef.unflatten(landed), state

    def modified(self, change: Change) -> "Nearest | None":
        """As `compiled.modified`."""
        inner = modified(self.inner, change)
        return None if inner is None else Nearest(inner)


def _leaves_like(treedef: Any, params: optax.Params | None) -> list[Any] | None:
    """The parameter of each gradient; None if not given or of a different structure."""
    try:
        leaves = treedef.flatten_up_to(params)
    except (ValueError, TypeError):
        return None
    is_array = all(hasattr(p, "dtype") or isinstance(p, float | complex) for p in leaves)
    return leaves if is_array else None
