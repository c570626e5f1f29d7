# SPDX-License-Identifier: Apache-2.0
"""One call for a step, compiled where nobody else compiles it.

Under a trace (`jit`, `scan`, `pmap` …) nothing here leaves a mark. Outside of one, an eager loop
costs one dispatch per step instead of several per leaf.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer

from adamx.core import hyperparameters
from adamx.core.snapshots import put_back


def step(
    opt: optax.GradientTransformation,
    grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    **extra: Any,
) -> tuple[optax.Params, optax.OptState]:
    """Updates the parameters: `opt.update`, then `optax.apply_updates`.

    Args:
      opt: any Optax transformation.
      grads: the gradients, a tree like `params`.
      state: the state, from `opt.init(params)` or the step before.
      params: the parameters.
      **extra: handed on to `opt.update`.

    Returns:
      The new parameters and the new state.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> state = opt.init(params)
      >>> for _ in range(3):
      ...     params, state = adamx.step(opt, 2 * params, state, params)
      >>> print(f"{params[0]:.6f}")
      0.701586
    """
    args = (grads, state, params, extra)
    return _compiled_step(opt, *args) if _takes_compiling(args) else _step(opt, *args)


def _step(opt: Any, grads: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
    updates, state = optax.with_extra_args_support(opt).update(grads, state, params, **extra)
    with jax.numpy_dtype_promotion(
        "standard"
    ):  # landings step half-precision parameters in float32
        params = optax.apply_updates(params, updates)
    return put_back(params, state), state


_compiled_step = jax.jit(_step, static_argnums=0)


def compiled(
    inner: optax.GradientTransformationExtraArgs, extra_names: Iterable[str]
) -> optax.GradientTransformationExtraArgs:
    """`inner` with an `update` that compiles itself and ignores extra arguments but these."""
    names = tuple(extra_names)

    def plain(updates: Any, state: Any, params: Any, extra: dict) -> tuple[Any, Any]:
        return inner.update(updates, state, params, **extra)

    compiled_update = jax.jit(plain)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        known = {k: extra[k] for k in names if extra.get(k) is not None}
        hyperparameters.check(**known)
        hyperparameters.check_static(**known)
        if not _takes_compiling((updates, state, params, known)):
            return plain(updates, state, params, known)
        for name in {"b1", "b2", "b3"} & known.keys():  # of which 1 - b has to keep its digits
            if isinstance(known[name], float):
                known[name] = hyperparameters.Split.of(known[name])
        return compiled_update(updates, state, params, known)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _takes_compiling(args: Any) -> bool:
    """Whether there is something to compile: not under a trace, which does so itself, nor where a
    leaf is nothing that JAX can take in, such as the activation functions of an Equinox model given
    as `params`, or a `value_fn` among the extra arguments."""
    samples = {type(x): x for x in jax.tree.leaves(args)}.values()  # a few types, many leaves
    return not any(isinstance(x, Tracer) or not isinstance(x, _ARRAYS) for x in samples)


_ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
