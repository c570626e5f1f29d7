# SPDX-License-Identifier: Apache-2.0
"""Gradient centralisation: Yong et al., 2020, arXiv 2004.01461."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, paths, shards
from adamx.core.compiled import compiled
from adamx.core.per_leaf import leafwise
from adamx.core.values import value
from adamx.landing import Nearest


def centralise(output_axis: int = -1) -> optax.GradientTransformationExtraArgs:
    """Takes from the gradient of each output its mean over all inputs.

    Put it in front of an optimizer. It acts on leaves of two dimensions and more. Kernels of Flax,
    Haiku and Keras are (input, output). `optax.centralize` is `output_axis=0`, which is right for
    those of Equinox and torch, (output, input). For: the paper, in image models. Against: no gain
    is known in transformers. A table of embeddings has no inputs: leave it out by `optax.masked`.

    Args:
      output_axis: the axis of a kernel's outputs.

    Returns:
      A transformation without state.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> link = adamx.centralise()
      >>> kernel = jnp.array([[1.0, 10.0], [3.0, 30.0]])
      >>> print(link.update(kernel, link.init(kernel))[0])
      [[ -1. -10.]
       [  1.  10.]]
    """
    if isinstance(output_axis, bool) or not isinstance(output_axis, int):
        raise TypeError(f"`output_axis` must be an integer, got {output_axis!r}")
    return compiled(Nearest(Centralise(output_axis)), ())


@value
class Centralise:
    """The link that `centralise` builds."""

    output_axis: int

    def init(self, params: optax.Params) -> Any:
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return paths.mapped(self._one, updates), state

    def _one(self, name: str, g: Any) -> jax.Array:
        shape = shards.whole(name, jnp.shape(g))
        if len(shape) < 2:
            return jnp.asarray(g)
        if not -len(shape) <= self.output_axis < len(shape):
            raise ValueError(f"{name}: no axis {self.output_axis} in an array of shape {shape}")
        output = self.output_axis % len(shape)
        inputs = tuple(i for i in range(len(shape)) if i != output)
        size = max(1, math.prod(shape[i] for i in inputs))
        across = shards.axis_name() if shards.dim(name) in inputs else None
        g = shards.masked(name, jnp.asarray(g))
        return _centred((g,), {}, (inputs, size), across)


@leafwise
def _centred(arrays: tuple[jax.Array], scalars: Any, over: Any, across: str | None) -> jax.Array:
    g, (inputs, size) = dtypes.widen(arrays[0]), over
    total = jnp.sum(g, inputs, keepdims=True)
    total = total if across is None else jax.lax.psum(total, across)
    return g - total / size
