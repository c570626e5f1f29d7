# SPDX-License-Identifier: Apache-2.0
"""Steps better not taken: what is not finite neither moves parameters nor is remembered."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import paths
from adamx.health.scalars import first
from adamx.norms import shards


class SkipState(NamedTuple):
    """The state of a guard.

    Attributes:
      inner: the optimizer's own.
      total: how many steps were skipped.
      in_a_row: how many of them were the last ones.
      first_bad: the number of the first leaf, in the order of `jax.tree.leaves`, that was not
        finite at the last skipped step; -1 before, the number of leaves if it was the state's.
      limit: how many may be skipped in a row; -1 for any number.
    """

    inner: Any
    total: jax.Array
    in_a_row: jax.Array
    first_bad: jax.Array
    limit: jax.Array


def skip_nonfinite(
    opt: optax.GradientTransformation, max_consecutive: int | None = 100
) -> optax.GradientTransformationExtraArgs:
    """`opt`, whose steps are not taken where a gradient, the update or the new state is not finite.

    Parameters and state stay as they were, the step is counted, and `health.check` names the first
    bad leaf. A run that only skips is not a run: after `max_consecutive` in a row `health.check`
    raises. The NaN is never applied, however many there are.

    Args:
      opt: any Optax transformation.
      max_consecutive: how many steps in a row may be skipped before `health.check` raises; None
        for any number.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> opt = skip_nonfinite(adamx.adam(0.1), max_consecutive=1)
      >>> params = {"kernel": jnp.ones(2)}
      >>> grads = {"kernel": jnp.array([1.0, jnp.nan])}
      >>> updates, state = opt.update(grads, opt.init(params), params)
      >>> print(updates["kernel"], state.total)
      [0. 0.] 1
    """
    if max_consecutive is not None and max_consecutive < 0:
        raise ValueError(f"`max_consecutive` must be at least 0, got {max_consecutive}")
    opt = optax.with_extra_args_support(opt)

    def init(params: optax.Params) -> SkipState:
        def scalar(value: int) -> jax.Array:
            return jnp.full([], value, jnp.int32)

        limit = scalar(-1 if max_consecutive is None else max_consecutive)
        return SkipState(opt.init(params), scalar(0), scalar(0), scalar(-1), limit)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, SkipState]:
        steps, inner = opt.update(updates, state.inner, params, **extra)
        leaves, treedef = jax.tree.flatten(updates)
        pairs = zip(leaves, treedef.flatten_up_to(steps), strict=True)
        bad = [_is_bad(g) | _is_bad(u) for g, u in pairs]
        bad.append(jnp.any(jnp.stack([_is_bad(x) for x in jax.tree.leaves(inner)])))
        bad = _anywhere(jnp.stack(bad))
        skip = jnp.any(bad)

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(skip, b, a), new, old)

        return (
            jax.tree.map(lambda u: jnp.where(skip, jnp.zeros_like(u), u), steps),
            SkipState(
                kept(inner, state.inner),
                state.total + skip.astype(jnp.int32),
                jnp.where(skip, state.in_a_row + 1, 0),
                jnp.where(skip, jnp.argmax(bad).astype(jnp.int32), state.first_bad),
                state.limit,
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


class TooManySkippedError(RuntimeError):
    """More steps in a row were skipped than the guard allows."""


def check(state: optax.OptState, params: optax.Params | None = None) -> None:
    """Raises where a guard in the state has skipped more steps in a row than it allows.

    Call it now and then on the host; it waits for the step that made the state.

    Args:
      state: an optimizer's state.
      params: the parameters, for the name of the leaf that was the first to be bad.

    Raises:
      TooManySkippedError: a `RuntimeError`.
    """
    guards = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, SkipState))
    for guard in (x for x in guards if isinstance(x, SkipState)):
        check(guard.inner, params)
        limit, in_a_row, bad = (
            int(first(x)) for x in (guard.limit, guard.in_a_row, guard.first_bad)
        )
        if 0 <= limit < in_a_row:
            raise TooManySkippedError(
                f"{_name(bad, params)} is not finite: {in_a_row} steps in a row were skipped, "
                f"{limit} are allowed. Parameters and state are those of the last good step"
            )


def first_bad(state: SkipState, params: optax.Params) -> str | None:
    """The name of the first leaf that was not finite at the last skipped step; None before."""
    number = int(first(state.first_bad))
    return None if number < 0 else _name(number, params)


def _name(number: int, params: optax.Params | None) -> str:
    if params is None:
        return f"leaf {number}"
    names = [*paths.names(params), "the optimizer's state"]
    return names[number]


def _is_bad(x: Any) -> jax.Array:
    """Whether a number of an array is not finite; integers carry NaN in codes of their own, which
    whoever reads them sees in the next update."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros([], bool)
    return ~jnp.all(jnp.isfinite(x))


def _anywhere(bad: jax.Array) -> jax.Array:
    """What is bad in any shard is bad."""
    along = shards.axes(None)
    return shards.total(bad.astype(jnp.int32), along) > 0 if along.names else bad
