# SPDX-License-Identifier: Apache-2.0
"""Different optimizers for different leaves, chosen by path patterns.

`optax.partition` does the work, and its state is kept. What is added: patterns instead of labels,
errors that name the leaf or the pattern, extra arguments for one group alone, and a step in one
pass for the groups that have one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from adamx.core import paths
from adamx.core.compiled import transformation
from adamx.core.instances import is_hole
from adamx.core.links import Around, Inside, links, promoting
from adamx.core.step import in_one_pass
from adamx.core.values import value


def groups(
    table: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Each leaf by the optimizer of the first pattern that matches its path.

    Args:
      table: path patterns, as in a table of `storage`, and their optimizers. A pattern that no leaf
        is left for, and a leaf that no pattern matches, are errors; only `"*"` may be unused.

    Returns:
      A transformation with the state of `optax.partition`, its labels the patterns. What
      `update` is given beside gradients goes to all groups; a dict from patterns to values is
      shared out: `learning_rate={"*": 1e-4}`. Optax's optimizers ignore the learning rate given
      there: build them with a schedule.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> table = {"*/kernel": optax.contrib.muon(0.02), "*": adamx.adamw(1e-3, storage="int8")}
      >>> opt = optax.chain(adamx.clip_by_global_norm(1.0), adamx.groups(table))
      >>> params = {"dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}}
      >>> params, state = adamx.step(opt, params, opt.init(params), params)
      >>> print(list(state[1].inner_states))
      ['*', '*/kernel']
    """
    if not table:
        raise ValueError("`table` of groups must have at least one pattern, got none")
    for pattern, opt in table.items():
        if not isinstance(pattern, str) or not hasattr(opt, "update") or not hasattr(opt, "init"):
            raise TypeError(
                "`table` must map path patterns to optimizers of Optax's kind, got "
                f"{pattern!r}: {type(opt).__name__}"
            )
    rows = tuple((pattern, optax.with_extra_args_support(opt)) for pattern, opt in table.items())
    return transformation(Groups(rows))


@value
class Groups:
    """The transformation that `groups` builds; the first pattern that matches a path decides."""

    rows: tuple[tuple[str, Any], ...]

    def init(self, params: optax.Params) -> Any:
        self._check_used(params)
        return self._partition().init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is not None and jax.tree.structure(params) != jax.tree.structure(updates):
            what = paths.difference(params, updates, "the tree of parameters", "the gradient")
            raise ValueError(f"groups: {what}")
        return self._partition().update(updates, self._checked(state), params, **extra)

    def step(
        self, params: optax.Params, state: Any, grads: Any, scale: Any = None, **extra: Any
    ) -> tuple[optax.Params, Any] | None:
        """Update and apply at once, group by group; None where a clip's `scale` is to be taken."""
        if scale is not None:
            return None
        labels, states = self.labels(grads), {}
        inner = self._checked(state).inner_states
        for pattern, opt in self.rows:
            see = only(labels, pattern)
            own = self._own(pattern, extra)
            with promoting(opt):
                held, states[pattern] = in_one_pass(
                    opt.update, see(params), inner[pattern].inner_state, see(grads), own
                )
            params = jax.tree.map(_either, held, params, is_leaf=is_hole)
        return params, optax.PartitionState({k: optax.MaskedState(states[k]) for k in states})

    def inside(self) -> list[Inside]:
        """The groups, for tools that look into optimizers."""

        def seen(pattern: str) -> Callable[[Any], Any]:
            return lambda tree: only(self.labels(tree), pattern)(tree)

        return [
            Inside(
                ("inner_states", pattern, "inner_state"),
                opt,
                Around(pattern, "group"),
                seen(pattern),
            )
            for pattern, opt in self.rows
        ]

    def labels(self, tree: Any) -> Any:
        """A tree like `tree`, of the pattern that decides for each leaf."""
        return paths.mapped(lambda name, _: self._label(name), tree)

    def _label(self, name: str) -> str:
        for pattern, _ in self.rows:
            if pattern == "*" or paths.matches(pattern, name):
                return pattern
        known = paths.nearest(name, [pattern for pattern, _ in self.rows])
        raise ValueError(
            f"{name}: no pattern of `groups` matches this leaf; the nearest are {known}"
        )

    def _partition(self) -> optax.GradientTransformationExtraArgs:
        def shared_out(pattern: str, opt: Any) -> Any:
            def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
                with promoting(opt):
                    return opt.update(updates, state, params, **self._own(pattern, extra))

            return optax.GradientTransformationExtraArgs(opt.init, update)

        return optax.partition({k: shared_out(k, opt) for k, opt in self.rows}, self.labels)

    def _own(self, pattern: str, extra: dict[str, Any]) -> dict[str, Any]:
        """The extra arguments of one group."""
        known = dict(self.rows)
        shared = {
            k: isinstance(v, Mapping) and bool(v) and set(v) <= set(known) for k, v in extra.items()
        }
        for k in _HYPER & extra.keys():
            if isinstance(extra[k], Mapping):
                _check_taken(k, extra[k], known)
        found = {k: v.get(pattern) if shared[k] else v for k, v in extra.items()}
        return {k: v for k, v in found.items() if not (shared[k] and v is None)}

    def _checked(self, state: Any) -> Any:
        """`state`, or an error that says what it lacks."""
        held = getattr(state, "inner_states", None)
        if held is None or set(held) != {k for k, _ in self.rows}:
            got = type(state).__name__ if held is None else f"one of {', '.join(map(repr, held))}"
            wanted = ", ".join(repr(k) for k, _ in self.rows)
            raise ValueError(f"groups: the state should be one of {wanted}; got {got}")
        return state

    def _check_used(self, params: Any) -> None:
        """Raises where no leaf is left for a pattern."""
        paths.check_used("`groups`", [k for k, _ in self.rows], params)
        names = paths.names(params)
        decided = {self._label(name): name for name in names}
        for pattern, _ in self.rows:
            if pattern == "*" or pattern in decided or not names or paths.is_hidden(params):
                continue
            taken = next(name for name in names if paths.matches(pattern, name))
            raise ValueError(
                f"`groups`: no leaf is left for {pattern!r}: {self._label(taken)!r} comes first "
                f"and takes {taken}"
            )


_HYPER = frozenset(("learning_rate", "b1", "b2", "b3", "eps", "weight_decay"))


def _check_taken(argument: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises where a value is for no group, or for one of Optax's optimizers, which ignore it."""
    for pattern in values:
        if pattern not in known:
            near = paths.nearest(pattern, list(known))
            raise ValueError(f"`{argument}`: there is no group {pattern!r}; the nearest are {near}")
        if all(link.module.startswith("optax") for link in links(known[pattern])):
            raise ValueError(
                f"`{argument}`: the optimizer of {pattern!r} is Optax's, which does not take it in "
                "`update`: give it a schedule when you build it"
            )


def only(labels: Any, label: Any) -> Callable[[Any], Any]:
    """The function that hides all leaves of a tree but those with this label."""

    def see(tree: Any) -> Any:
        return jax.tree.map(lambda x, y: y if x == label else optax.MaskedNode(), labels, tree)

    return see


def _either(held: Any, whole: Any) -> Any:
    return whole if is_hole(held) else held
