# SPDX-License-Identifier: Apache-2.0
"""The links that an optimizer is made of, with the place of each one's state.

Links of ours are values that say what is inside them. Optax's are closures: a transformation is
known by the function that `update` was defined in, and what it wraps by the variables that this
function holds.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import optax

from adamx.core.compiled import Update

ANY = "*"  # in a place: one step of a path, whatever it is

Narrow = Callable[[Any], Any]  # from a tree like the parameters to the part that a link sees


class Inside(NamedTuple):
    """A transformation inside another one.

    Attributes:
      place: the path of its state within the other's, as the words of the path.
      opt: the transformation, or a value of ours with `init` and `update`.
      label: what the other calls it; empty if it has no name for it.
      narrow: from a tree like the parameters to the part that it sees.
    """

    place: tuple[Any, ...]
    opt: Any
    label: str = ""
    narrow: Narrow | None = None


class Link(NamedTuple):
    """A transformation that wraps no other one.

    Attributes:
      place: the path of its state within the state of the whole, as words; `ANY` where unknown.
      made: the function that made it, such as `scale_by_adam`.
      module: the module of that function.
      held: what the function holds: the variables of a closure of Optax's, by name; the value
        itself, as `"self"`, of a link of ours.
      within: what is around it, outermost first.
      narrow: from a tree like the parameters to the part that it sees.
    """

    place: tuple[Any, ...]
    made: str
    module: str
    held: Mapping[str, Any]
    within: tuple[str, ...]
    narrow: Narrow


def links(opt: Any) -> list[Link]:
    """All links of an optimizer, in the order of its chains.

    Example:
      >>> opt = optax.chain(optax.clip(1.0), optax.masked(optax.adam(0.1), True))
      >>> for link in links(opt):
      ...     print(link.made, link.place)
      clip (0,)
      scale_by_adam (1, 'inner_state', 0)
      scale (1, 'inner_state', 1)
    """
    return list(_links(opt, (), (), lambda tree: tree))


def _links(opt: Any, place: tuple, within: tuple[str, ...], narrow: Narrow) -> Iterator[Link]:
    made, module, held = _maker(opt)
    inside = _inside(made, module, held)
    if not inside:
        yield Link(place, made, module, held, within, narrow)
    for part in inside:
        around = within if made in _PLAIN else (*within, part.label or made)
        see = functools.partial(_both, narrow, part.narrow) if part.narrow else narrow
        yield from _links(part.opt, (*place, *part.place), around, see)


def promoting(opt: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which a transformation of others may mix dtypes, as JAX does by default."""
    if isinstance(opt.update, Update):
        return contextlib.nullcontext()
    return jax.numpy_dtype_promotion("standard")


_PLAIN = ("chain", "named_chain", "masked")  # which need not be told


def _both(outer: Narrow, inner: Narrow, tree: Any) -> Any:
    return inner(outer(tree))


def _maker(opt: Any) -> tuple[str, str, Mapping[str, Any]]:
    """The name and module of the function that made a transformation, and what it holds."""
    update = opt if not hasattr(opt, "update") else opt.update
    while not hasattr(update, "inside") and not hasattr(update, "mask"):
        inner = getattr(update, "link", None) or getattr(update, "inner", None)
        if inner is None:
            break
        update = inner  # of `Update`, of what compiles itself, of `Nearest`
    if hasattr(update, "inside"):
        return _own_name(update), type(update).__module__, {"self": update}
    if isinstance(update, functools.partial):
        update = update.func
    owner = getattr(update, "__self__", None)
    if owner is not None:
        return type(owner).__name__, type(owner).__module__, vars(owner)
    code = getattr(update, "__code__", None)
    if code is None:
        kind = type(update)
        return _own_name(update), kind.__module__, {"self": update}
    made = update.__qualname__.split(".")[0]
    held = inspect.getclosurevars(update).nonlocals
    if made == "with_extra_args_support" and "tx" in held:
        return _maker(held["tx"])
    return made, update.__module__, held


def _own_name(x: Any) -> str:
    name = getattr(x, "name", None)
    return name if isinstance(name, str) else type(x).__name__


def _inside(made: str, module: str, held: Mapping[str, Any]) -> list[Inside]:
    if "self" in held:
        look = getattr(held["self"], "inside", None)
        return look() if look else []
    if module.startswith("optax"):
        if made == "chain":
            return [Inside((i,), update) for i, update in enumerate(held["update_fns"])]
        if made == "named_chain":
            return [Inside((name,), opt, name) for name, opt in held["transforms"]]
        if made == "masked":
            return [Inside(("inner_state",), held["inner"], "", _seen(held["mask"]))]
        if made == "partition":
            maker = getattr(held["param_labels"], "__qualname__", "")
            maker = f"{maker.split('.')[0]} " if "<locals>" in maker else ""
            return [
                Inside(
                    ("inner_states", label, "inner_state"),
                    opt,
                    f"{maker}{label}",
                    _labelled(held["param_labels"], label),
                )
                for label, opt in held["transforms"].items()
            ]
    found = [x for x in held.values() if hasattr(x, "init") and hasattr(x, "update")]
    return [Inside((ANY,), opt) for opt in found]


def _seen(mask: Any) -> Narrow:
    def narrow(tree: Any) -> Any:
        found = mask(tree) if callable(mask) else mask
        return _only(jax.tree.map(bool, found), True, tree)

    return narrow


def _labelled(labels: Any, label: Any) -> Narrow:
    def narrow(tree: Any) -> Any:
        return _only(labels(tree) if callable(labels) else labels, label, tree)

    return narrow


def _only(labels: Any, label: Any, tree: Any) -> Any:
    """`tree` without the leaves of other labels; a label may stand for a whole subtree."""

    def spread(x: Any, below: Any) -> Any:
        return jax.tree.map(lambda y: y if x == label else optax.MaskedNode(), below)

    return jax.tree.map(spread, labels, tree)
