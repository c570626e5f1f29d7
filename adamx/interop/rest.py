# SPDX-License-Identifier: Apache-2.0
"""What a state keeps beside moments and landings: counters, accumulated gradients, injected values.

Such an array is known by the NamedTuple that holds it and by its place therein, wherever wrappers
have put that.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr

from adamx.landing import LandingState
from adamx.moments.find import is_moments

Key = tuple[str, str]

# The states whose `count` is that of the optimizer's steps, by which schedules go.
_CLOCKS = (
    "CountState",
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "ScaleByScheduleState",
    "WrappedScheduleState",
)


def with_rest(new: Any, old: Any, count: int) -> Any:
    """`new`, whose moments are in place, with the other arrays of `old`, a state of another
    optimizer.

    What is in both as often, and of one shape, is taken over. Counters of schedules that `old`
    lacks become `count`. Others stay as they are: that of `optax.ema` corrects an average that
    starts here.

    Example:
      >>> import optax, jax.numpy as jnp
      >>> opt = optax.MultiSteps(optax.sgd(0.1), 4)
      >>> state = opt.init(jnp.ones(2))._replace(mini_step=3)
      >>> print(with_rest((opt.init(jnp.ones(2)),), state, 0)[0].mini_step)
      3
    """
    there: dict[Key, list[Any]] = defaultdict(list)
    here: dict[Key, list[Any]] = defaultdict(list)
    for found, tree in ((there, old), (here, new)):
        _mapped(tree, lambda key, x, found=found: found[key].append(x))
    same = {k for k in here if list(map(jnp.shape, here[k])) == list(map(jnp.shape, there[k]))}
    left: dict[Key, Iterator[Any]] = {k: iter(there[k]) for k in same}

    def one(key: Key, x: Any) -> Any:
        if key in left:
            return jnp.asarray(next(left[key])).astype(jnp.result_type(x))
        is_count = key[0] in _CLOCKS and key[1].endswith("count") and jnp.shape(x) == ()
        return jnp.full_like(x, count) if is_count else x

    return _mapped(new, one)


def _mapped(node: Any, call: Callable[[Key, Any], Any], owner: str = "", place: str = "") -> Any:
    """The state with `call` applied to every array that is no moment's and no landing's."""
    if node is None or is_moments(node) or isinstance(node, LandingState):
        return node
    fields = getattr(node, "_fields", None)
    if isinstance(node, tuple) and fields:
        kind: Any = type(node)
        parts = zip(node, fields, strict=True)
        return kind(*(_mapped(x, call, kind.__name__, field) for x, field in parts))
    if isinstance(node, tuple) and fields == ():  # as `EmptyState`
        return node
    if isinstance(node, tuple | list):
        return type(node)(_mapped(x, call, owner, place) for x in node)
    if isinstance(node, dict):
        made = {k: _mapped(x, call, owner, f"{place}/{k}") for k, x in node.items()}
        return made if type(node) is dict else type(node)(made)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(node)
    return treedef.unflatten([call((owner, place + keystr(path)), x) for path, x in leaves])
