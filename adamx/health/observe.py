# SPDX-License-Identifier: Apache-2.0
"""Wraps any optimizer and keeps figures of its health in the state."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import paths
from adamx.core.hyperparameters import check_count
from adamx.health import figures, leaf_stats
from adamx.health.states import LossScaleState, ObserveState, check_inside, check_own
from adamx.health.trend import Trend, followed, trend


def observe(
    opt: optax.GradientTransformation,
    every: int = 1,
    groups: Sequence[str] = (),
    per_leaf: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`opt` with the same steps, and figures about them in its state.

    `health.read(state)` returns them as numbers. There are figures of the whole tree, of groups of
    leaves and, on request, of each leaf. `adamx.health.figures` defines them.

    Args:
      opt: any Optax transformation, a whole optimizer with its clipping and learning rate.
      every: the number of steps from one update of the figures to the next; the steps between
        cost almost nothing.
      groups: path patterns, such as `"decoder/*|*/bias"`; figures of a group are named
        `figure/pattern`.
      per_leaf: whether to compute figures of each leaf, named `figure/path`.

    Returns:
      A transformation whose `update` needs the parameters.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> opt = health.observe(adamx.adam(0.1))
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, state = opt.update(params, opt.init(params), params)
      >>> print(round(health.read(state)["grad_norm"], 3))
      5.0
    """
    check_count(every=every)
    opt = optax.with_extra_args_support(opt)

    def groups_of(tree: Any) -> dict[str, list[str]]:
        """The leaves of each group, by the suffix of its figures' names."""
        names = paths.names(tree)
        paths.check_used("`groups`", groups, tree)
        found = {"": names} | {
            f"/{pattern}": [name for name in names if paths.matches(pattern, name)]
            for pattern in groups
        }
        return found | ({f"/{name}": [name] for name in names} if per_leaf else {})

    def init(params: optax.Params) -> ObserveState:
        blank = {
            figure + behind: jnp.full([], jnp.nan, jnp.float32)
            for behind in groups_of(params)
            for figure in figures.NAMES
        }
        inner = opt.init(params)
        check_inside("observe", inner, LossScaleState)
        return ObserveState(inner, jnp.zeros([], jnp.int32), blank, trend())

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, ObserveState]:
        if params is None:
            raise ValueError("observe needs the parameters: call `update(grads, state, params)`")
        check_own("observe", state, ObserveState)

        def next_step() -> jax.Array:
            return jnp.asarray(optax.safe_increment(state.step))

        def look(
            grads: optax.Updates, steps: Any, inner: Any
        ) -> tuple[dict[str, jax.Array], Trend]:
            leaves = leaf_stats.leaves(opt, grads, steps, params, inner)
            found = {
                figure + behind: value
                for behind, names in groups_of(grads).items()
                for figure, value in figures.of([leaves[name] for name in names]).items()
            }
            return found, followed(state.trend, found["grad_norm"])

        if every == 1:
            steps, inner = opt.update(updates, state.inner, params, **extra)
            return steps, ObserveState(inner, next_step(), *look(updates, steps, inner))

        def look_now() -> tuple[Any, ...]:
            taken = opt.update(updates, state.inner, params, **extra)
            return *look(updates, *taken), next_step()

        def look_away() -> tuple[Any, ...]:
            return state.figures, state.trend, next_step()

        # The observed step is computed apart from the step that is taken, and before it: the latter
        # depends on the count that both branches return. So the old state need not be kept beside
        # the new one, and a step that is not observed costs no more than without `observe`.
        found, moved, then = lax.cond(state.step % every == 0, look_now, look_away)
        updates = jax.tree.map(
            lambda g: jnp.where(then != state.step, g, jnp.zeros_like(g)), updates
        )
        steps, inner = opt.update(updates, state.inner, params, **extra)
        return steps, ObserveState(inner, then, found, moved)

    return optax.GradientTransformationExtraArgs(init, update)
