# SPDX-License-Identifier: Apache-2.0
"""Gradient accumulation: one step from the mean of several gradients, one buffer to hold it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from adamx.core import dtypes, paths, random_bits, shards
from adamx.core.hyperparameters import check_count
from adamx.core.only_if import only_if
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_state
from adamx.storage.floats import stochastic


def accumulate(
    opt: optax.GradientTransformation,
    every: int | Callable[[jax.Array], ArrayLike],
    dtype: DTypeLike = jnp.float32,
    *,
    seed: random_bits.Seed = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""`opt` that steps by the mean of `every` gradients, and only then.

    .. math:: a \leftarrow a + (g_i - a) / i, \quad i = 1, \dots, n

    The state is that of `optax.MultiSteps`, for `optax.tree.get`, checkpoints and `has_updated`.
    What differs: `opt` runs in one call of `every` and costs nothing in the others; it is given the
    mean in at least float32, not in the gradients' dtype; a NaN is gone with the step that it was
    part of, where `MultiSteps` keeps it for ever (0 * NaN); a bfloat16 sum is rounded
    stochastically, where to nearest it stands still.

    In the calls between, updates are -0.0: their sum with a parameter is the parameter, bit for
    bit. `fold_micro_batches` needs no buffer.

    Args:
      opt: any Optax transformation, a whole optimizer with its clipping and its landing.
      every: the number of gradients in a step, or a function of the number of steps so far.
      dtype: of the buffer: float32, float64 or bfloat16. Wider leaves and complex ones keep their
        own.
      seed: the seed of the rounding noise of a bfloat16 buffer.

    Returns:
      A transformation whose state is an `optax.MultiStepsState`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.accumulate(adamx.adam(0.1), every=2)
      >>> params, state = jnp.array([1.0]), opt.init(jnp.array([1.0]))
      >>> for g in (5.0, -1.0):
      ...     params, state = adamx.step(opt, params, state, jnp.array([g]))
      ...     print(params, state.mini_step)
      [1.] 1
      [0.9] 0
    """
    if not callable(every):
        check_count(every=every)
    held = jax.dtypes.canonicalize_dtype(dtype)
    if held not in (jnp.float32, jnp.float64, jnp.bfloat16):
        raise ValueError(f"`dtype` must be float32, float64 or bfloat16, got {held}")
    opt = optax.with_extra_args_support(opt)

    def init(params: optax.Params) -> optax.MultiStepsState:
        zeros = jax.tree.map(lambda p: jnp.full_like(p, 0, dtype=_dtype(p, held)), params)
        steps, total = (jnp.zeros([], jnp.int32) for _ in range(2))
        return optax.MultiStepsState(steps, total, opt.init(params), zeros)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, optax.MultiStepsState]:
        check_state("accumulate", state, optax.MultiStepsState, _BEGIN)
        steps = every(state.gradient_step) if callable(every) else every
        steps = jnp.asarray(steps).astype(jnp.int32)
        mean = _added(updates, state, steps, seed)

        def step(kept: tuple[Any, Any]) -> tuple[Any, Any]:
            mean, inner = kept
            found, inner = opt.update(jax.tree.map(dtypes.widen, mean), inner, params, **extra)
            return found, (jax.tree.map(jnp.zeros_like, mean), inner)

        due = state.mini_step + 1 >= steps
        found, (mean, inner) = only_if(due, step, (mean, state.inner_opt_state))
        waited = jnp.where(due, 0, state.mini_step + 1)
        total = jnp.where(due, optax.safe_increment(state.gradient_step), state.gradient_step)
        return found, optax.MultiStepsState(waited, total, inner, mean, state.skip_state)

    return optax.GradientTransformationExtraArgs(init, update)


_BEGIN = (
    "with the state of `opt` alone, go on with "
    "`accumulate(opt, …).init(params)._replace(inner_opt_state=state)`"
)


def _dtype(p: Any, held: jnp.dtype) -> jnp.dtype:
    own = dtypes.of(p)
    is_half = held == jnp.bfloat16 and not dtypes.is_complex(own) and own != jnp.float64
    return held if is_half else dtypes.wider(dtypes.working(own), held)


def _added(updates: Any, state: Any, steps: jax.Array, seed: random_bits.Seed) -> Any:
    """The mean of the gradients so far."""
    leaves, treedef = paths.flatten(updates)
    try:
        means = treedef.flatten_up_to(state.acc_grads)
    except (ValueError, TypeError) as e:
        what = paths.difference(state.acc_grads, updates, "the state's `acc_grads`", "the gradient")
        raise ValueError(f"accumulate: {what}") from e
    names = [paths.name(path) for path, _ in leaves]
    count = state.gradient_step * steps + state.mini_step  # one for each gradient
    seeds = [seed if a.dtype == jnp.bfloat16 else None for a in means]
    noise = random_bits.of_leaves(seeds, count, names)
    found = []
    for name, (_, g), mean, words in zip(names, leaves, means, noise, strict=True):
        if jnp.shape(g) != jnp.shape(mean):
            raise ValueError(
                f"{name}: gradient has shape {jnp.shape(g)}, the state's `acc_grads` has "
                f"{jnp.shape(mean)} (accumulate)"
            )
        part = shards.part(name, jnp.shape(g))
        arrays = (g, mean, words, part.first)
        found.append(_added_leaf(arrays, {"count": state.mini_step + 1}, part.whole))
    return treedef.unflatten(found)


@leafwise
def _added_leaf(arrays: tuple, scalars: dict[str, Any], whole: Any) -> jax.Array:
    g, mean, words, first = arrays
    old = dtypes.widen(mean)
    g = jnp.asarray(g).astype(old.dtype)
    count = scalars["count"].astype(dtypes.real(old.dtype)).astype(old.dtype)
    new = old + (g / 2 - old / 2) / (count / 2)  # halves, as the difference may be too large
    if words is None:
        return new
    noise = random_bits.noise(random_bits.Key(words, whole, first), jnp.shape(g))
    return stochastic(new, noise.draw(random_bits.LANDING))
