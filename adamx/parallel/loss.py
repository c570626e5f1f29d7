# SPDX-License-Identifier: Apache-2.0
"""The state of a training run, and its mean gradient over micro-batches."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from adamx.core import dtypes
from adamx.core.norms import mapped_axes
from adamx.health import scaled


class Run(NamedTuple):
    """A training run between two steps.

    Attributes:
      params: the parameters.
      state: the optimizer's state.
      model: other state of the model, such as batch statistics; None if there is none.
      key: a PRNG key, a new one at every step; None if the loss takes none.
    """

    params: Any
    state: Any
    model: Any = None
    key: Any = None


def checked_run(name: str, run: Any) -> Run:
    """`run`; raises if it is none."""
    if not isinstance(run, Run):
        raise TypeError(
            f"`{name}` must be a run, such as `parallel.Run(params, state)`, got "
            f"a {type(run).__name__}"
        )
    return run


class Outcome(NamedTuple):
    """What a step reports.

    Attributes:
      loss: the mean loss.
      aux: what else `loss_fn` returned: means of floats, sums of integers.
    """

    loss: jax.Array
    aux: Any = None


class Gradient(NamedTuple):
    """The mean gradient, the outcome and the new model state."""

    grads: Any
    outcome: Outcome
    model: Any


class Loss(NamedTuple):
    """A loss, as `data_parallel` describes it, and how to compute its gradient."""

    function: Callable[..., Any]
    has_aux: bool
    micro_batches: int


def gradient(loss: Loss, run: Run, batch: Any, key: Any) -> Gradient:
    """The gradient of the mean loss over a batch, one micro-batch after the other.

    With `health.scale_loss` it is the gradient of the loss times the scale.

    A micro-batch takes every k-th example, so that a sharded batch stays on its devices. Sums are
    in float32 or wider. The model's state passes from one micro-batch to the next.
    """
    count = loss.micro_batches
    if count == 1:
        return _one(loss, run, run.model, batch, key)
    parts = jax.tree.map(lambda x: _parts(x, count), batch)
    keys = None if key is None else jax.random.split(key, count)
    mapped = mapped_axes.varying(jax.tree.leaves(parts)[0])
    first = jax.tree.map(lambda x: x[0], (parts, keys))
    shapes = jax.eval_shape(lambda: _one(loss, run, run.model, *first))
    zeros = jax.tree.map(_zeros, run.params), jax.tree.map(_zeros, shapes.outcome)
    zeros, model = jax.tree.map(lambda x: varied(x, mapped), (zeros, run.model))

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        sums, model = carry
        found = _one(loss, run, model, *part)
        return (jax.tree.map(_plus, sums, (found.grads, found.outcome)), found.model), None

    (sums, model), _ = lax.scan(add, (zeros, model), (parts, keys))
    grads, outcome = jax.tree.map(lambda x: _over(x, count), sums)
    return Gradient(grads, outcome, model)


def varied(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """`x` marked as varying over these mapped axes, if JAX keeps track of that."""
    more = tuple(set(axes) - mapped_axes.varying(x))
    return lax.pcast(x, more, to="varying") if more else x


def _one(loss: Loss, run: Run, model: Any, batch: Any, key: Any) -> Gradient:
    extra = {k: v for k, v in (("model", model), ("key", key)) if v is not None}

    def scalar(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any, Any]]:
        found = loss.function(params, batch, **extra)
        found = found if isinstance(found, tuple) else (found,)
        wanted = ["loss", *["model"] * (model is not None), *["aux"] * loss.has_aux]
        if len(found) != len(wanted):
            raise TypeError(
                f"`loss_fn` should return {', '.join(wanted)}; it returned {len(found)} "
                f"value{'s' * (len(found) != 1)}"
            )
        named = dict(zip(wanted, found, strict=True))
        rest = named["loss"], named.get("model"), named.get("aux")
        return scaled(named["loss"], run.state), jax.tree.map(jnp.asarray, rest)

    (_, (value, model, aux)), grads = jax.value_and_grad(scalar, has_aux=True)(run.params)
    return Gradient(grads, Outcome(value, aux), model)


def _parts(x: Any, count: int) -> jax.Array:
    x = jnp.asarray(x)
    if x.shape[0] % count:
        raise ValueError(f"{x.shape[0]} examples on a device can't make {count} micro-batches")
    return jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0)


def _zeros(x: Any) -> jax.Array:
    return jnp.zeros_like(x, dtype=dtypes.working(x.dtype) if is_mean(x) else x.dtype)


def _over(x: jax.Array, count: int) -> jax.Array:
    return x / count if is_mean(x) else x


def is_mean(x: Any) -> bool:
    """Whether a value is averaged over a batch. Integers are counts, and are summed."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _plus(total: jax.Array, x: jax.Array) -> jax.Array:
    return total + x.astype(total.dtype)
