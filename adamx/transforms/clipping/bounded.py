# SPDX-License-Identifier: Apache-2.0
"""From a rule with a bound on gradients to a gradient transformation.

Checks what comes in and finds the bounds of this step. The rules are in `clip` and `agc`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import hyperparameters, paths, shards
from adamx.core.compiled import Compiled, transformation
from adamx.core.hyperparameters import Hyper
from adamx.core.values import value


def bounded(
    rule: Callable[..., list[jax.Array]],
    bounds: Mapping[str, Hyper],
    options: Mapping[str, Any] | None = None,
    *,
    needs_names: bool = False,
    needs_params: str | None = None,
    override: str | None = None,
    common: Callable[..., Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation that applies `rule` to the leaves of a tree.

    The rule maps gradient leaves and keywords to gradient leaves. Keywords are the bounds (numbers,
    traced values or schedules), the options (hashable), `names` of leaves with either of the two
    below, and with `needs_params`, which names the transformation, also the leaves `params`.
    `override` is the name by which one call overrides the first bound, if not its own. `common` is
    for a rule that multiplies all leaves by one `Scale`: a function like the rule that returns it.
    """
    for name, bound in bounds.items():
        _check_bound(name, bound, strict=name != "eps")
    link = Bounded(rule, dict(bounds), options or {}, needs_names, needs_params, common)
    shares = not any(map(callable, bounds.values()))
    return transformation(Checked(Compiled(link, (link.main,), shares), override or link.main))


@value
class Bounded:
    """A rule with its bounds, see `bounded`."""

    rule: Callable[..., list[jax.Array]]
    bounds: Mapping[str, Hyper]
    options: Mapping[str, Any]
    needs_names: bool
    needs_params: str | None
    common: Callable[..., Any] | None = None

    @property
    def main(self) -> str:
        """The name of the bound that one call may override."""
        return next(iter(self.bounds))

    @property
    def scheduled(self) -> bool:
        """Whether a bound is a schedule."""
        return any(map(callable, self.bounds.values()))

    def init(self, params: optax.Params) -> Any:
        del params
        if self.scheduled:
            return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        now, state = self._now(state, extra)
        leaves, treedef = gradients(updates)
        if self.needs_names or self.needs_params:
            now["names"] = paths.names(updates)
        if self.needs_params:
            now["params"] = _params_like(updates, leaves, treedef, params, self.needs_params)
        return treedef.unflatten(self.rule(leaves, **now, **self.options)), state

    def scale(self, updates: optax.Updates, state: Any, **extra: Any) -> tuple[Any, Any] | None:
        """What all gradients are multiplied by at this step, and the state after it; None where
        that is not one number for all."""
        if self.common is None:
            return None
        now, state = self._now(state, extra)
        return self.common(gradients(updates)[0], **now, **self.options), state

    def _now(self, state: Any, extra: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The bounds at this step, and the state after it."""
        schedules = {k: v for k, v in self.bounds.items() if callable(v)}
        now: dict[str, Any] = {k: v for k, v in self.bounds.items() if k not in schedules} | extra
        if schedules:
            now = {k: v(state.count) for k, v in schedules.items()} | now
            state = optax.ScaleByScheduleState(count=optax.safe_increment(state.count))
        return {k: _canonical(v) for k, v in now.items()}, state


@value
class Checked:
    """A bounded link whose override and state are checked before anything is compiled."""

    inner: Compiled
    override: str

    def init(self, params: optax.Params) -> Any:
        return self.inner.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return self.inner.update(updates, state, params, **self._checked(state, extra))

    def scale(self, updates: optax.Updates, state: Any, **extra: Any) -> tuple[Any, Any] | None:
        """As that of the inner link."""
        return self.inner.link.scale(updates, state, **self._checked(state, extra))

    def _checked(self, state: Any, extra: dict[str, Any]) -> dict[str, Any]:
        given, now, link = extra.get(self.override), {}, self.inner.link
        if given is not None:
            _check_bound(self.override, given, may_vary=False)
            now = {link.main: _canonical(given)}
        if link.scheduled and not isinstance(state, optax.ScaleByScheduleState):
            raise ValueError(
                f"the schedule of `{link.main}` needs the state ScaleByScheduleState, got "
                f"{type(state).__name__}: it was made by another transformation"
            )
        return now


def gradients(updates: optax.Updates) -> tuple[list[Any], Any]:
    """The leaves of gradients, checked, without what pads them, and their treedef."""
    leaves, treedef = jax.tree.flatten(updates)
    _check_leaves("gradient", updates, leaves)
    if shards.axis_name():
        leaves = [shards.masked(*leaf) for leaf in zip(paths.names(updates), leaves, strict=True)]
    return leaves, treedef


def _check_bound(
    name: str, bound: Hyper | None, *, strict: bool = True, may_vary: bool = True
) -> None:
    if bound is None or (callable(bound) and not may_vary):
        kinds = "a number, an array or a schedule" if may_vary else "a number or an array here"
        raise TypeError(f"`{name}` must be {kinds}, got {bound!r}")
    if isinstance(bound, int | float | np.number) and not isinstance(bound, bool):
        if not (bound > 0 or (bound == 0 and not strict)):
            raise ValueError(f"`{name}` must be {'>' if strict else '>='} 0, got {bound}")
        if bound == math.inf:
            return
    hyperparameters.check(**{name: bound})


def _canonical(bound: Any) -> Any:
    """A number as an array of JAX's default dtype, inf where it is beyond that dtype's range."""
    if not isinstance(bound, int | float | np.number):
        return bound
    with np.errstate(over="ignore"):
        return np.asarray(float(bound), jnp.result_type(float))


def _check_leaves(what: str, tree: Any, leaves: list[Any]) -> None:
    for i, leaf in enumerate(leaves):
        number = isinstance(leaf, int | float | complex) or hasattr(leaf, "dtype")
        dtype = jnp.result_type(leaf) if number else type(leaf).__name__
        if not number or not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"{paths.names(tree)[i]}: {what} is {dtype}, clipping needs floating point "
                "(leave such leaves out with `optax.masked` or `optax.partition`)"
            )


def _params_like(updates: Any, leaves: list[Any], treedef: Any, params: Any, who: str) -> list[Any]:
    if params is None:
        raise ValueError(f"{who} needs the parameters: call `update(grads, state, params)`")
    try:
        beside = treedef.flatten_up_to(params)
    except (ValueError, TypeError) as e:
        what = paths.difference(params, updates, "params", "the gradient")
        raise ValueError(f"{who}: {what}") from e
    _check_leaves("parameter", updates, beside)
    for name, g, p in zip(paths.names(updates), leaves, beside, strict=True):
        if jnp.shape(g) != jnp.shape(p):
            raise ValueError(
                f"{name}: gradient has shape {jnp.shape(g)}, parameter has {jnp.shape(p)} ({who})"
            )
    return beside
