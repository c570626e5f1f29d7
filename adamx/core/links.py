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
from typing import Any, Literal, NamedTuple

import jax
import optax

from adamx.core.compiled import Update

ANY = "*"  # in a place: one step of a path, whatever it is

Narrow = Callable[[Any], Any]  # from a tree like the parameters to the part that a link sees


class Around(NamedTuple):
    """What is around a link.

    Attributes:
      name: what it is called, such as `adamx.adamw`, or a group's pattern.
      kind: a recipe, of which the link is a part; a group of leaves; or what wraps any link.
      value: the wrapper itself, where it is a value of ours.
    """

    name: str
    kind: Literal["recipe", "group", "wrapper"]
    value: Any = None


class Inside(NamedTuple):
    """A transformation inside another one.

    Attributes:
      place: the path of its state within the other's, as the words of the path.
      opt: the transformation, or a value of ours with `init` and `update`.
      around: what the other one is to it; None for what need not be told.
      narrow: from a tree like the parameters to the part that it sees.
    """

    place: tuple[Any, ...]
    opt: Any
    around: Around | None = None
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
    within: tuple[Around, ...]
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


def _links(opt: Any, place: tuple, within: tuple[Around, ...], narrow: Narrow) -> Iterator[Link]:
    made, module, held = _maker(opt)
    inside = _inside(made, module, held)
    if not inside:
        yield Link(place, made, module, held, within, narrow)
    for part in inside:
        around = within if part.around is None else (*within, part.around)
        see = functools.partial(_both, narrow, part.narrow) if part.narrow else narrow
        yield from _links(part.opt, (*place, *part.place), around, see)


def promoting(opt: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which a transformation of others may mix dtypes, as JAX does by default."""
    if isinstance(opt.update, Update):
        return contextlib.nullcontext()
    return jax.numpy_dtype_promotion("standard")


def public(module: str, name: str) -> str:
    """The name by which a function of a module is known, `optax.contrib.muon` for one in
    `optax.contrib._muon`."""
    words = [w for w in module.split(".") if not w.startswith("_")]
    if words[0] in ("optax", "adamx"):
        words = [w for w in words[:2] if w in ("optax", "adamx", "contrib", "health")]
    return ".".join([*words, name])


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
    owner = getattr(update, "__self__", update)
    if getattr(update, "__code__", None) is None or owner is not update:
        return _own_name(owner), type(owner).__module__, {"self": owner, **_variables(owner)}
    made = update.__qualname__.split(".")[0]
    held = inspect.getclosurevars(update).nonlocals
    if made == "with_extra_args_support" and "tx" in held:
        return _maker(held["tx"])
    return made, update.__module__, held


def _own_name(x: Any) -> str:
    name = getattr(x, "name", None)
    return name if isinstance(name, str) else type(x).__name__


def _variables(x: Any) -> dict[str, Any]:
    return dict(vars(x)) if hasattr(x, "__dict__") else {}


def _inside(made: str, module: str, held: Mapping[str, Any]) -> list[Inside]:
    if hasattr(held.get("self"), "inside"):
        return held["self"].inside()
    if module.startswith("optax"):
        if made == "chain":
            return [Inside((i,), update) for i, update in enumerate(held["update_fns"])]
        if made == "named_chain":
            return [Inside((name,), opt) for name, opt in held["transforms"]]
        if made == "masked":
            return [Inside(("inner_state",), held["inner"], None, seen(held["mask"]))]
        if made == "partition":
            return [
                Inside(
                    ("inner_states", label, "inner_state"),
                    opt,
                    _group(held["param_labels"], label),
                    _labelled(held["param_labels"], label),
                )
                for label, opt in held["transforms"].items()
            ]
    found = [x for k, x in held.items() if k != "self" and _is_transformation(x)]
    around = Around(public(module, _outer(made, module, held)), "wrapper")
    return [Inside((ANY,), opt, around) for opt in found]


def _outer(made: str, module: str, held: Mapping[str, Any]) -> str:
    """The function that called the one that made a wrapper, if that holds a function of its."""
    for x in held.values():
        name, _, rest = getattr(x, "__qualname__", "").partition(".")
        if rest.startswith("<locals>") and name != made and x.__module__ == module:
            return name
    return made


def _is_transformation(x: Any) -> bool:
    return hasattr(x, "init") and hasattr(x, "update")


def _group(labels: Any, label: Any) -> Around:
    """A group of `optax.partition`, or the recipe that it is a part of, as in Muon."""
    maker, _, rest = getattr(labels, "__qualname__", "").partition(".")
    if not rest.startswith("<locals>") or not labels.__module__.startswith("optax"):
        return Around(str(label), "group")
    name = public(labels.__module__, maker)
    return Around(name if label == maker else f"{name} ({label})", "recipe")


def seen(mask: Any) -> Narrow:
    """The function that hides what a mask of Optax's hides."""

    def narrow(tree: Any) -> Any:
        found = mask(tree) if is_function(mask) else mask
        return _only(jax.tree.map(bool, found), True, tree)

    return narrow


def is_function(mask: Any) -> bool:
    """Whether a mask makes a tree of booleans, as Optax tells. A tree of them may be callable too,
    as modules of Equinox are."""
    leaves = jax.tree.leaves(mask)
    return bool(leaves) and all(map(callable, leaves))


def _labelled(labels: Any, label: Any) -> Narrow:
    def narrow(tree: Any) -> Any:
        return _only(labels(tree) if callable(labels) else labels, label, tree)

    return narrow


def _only(labels: Any, label: Any, tree: Any) -> Any:
    """`tree` without the leaves of other labels; a label may stand for a whole subtree."""

    def spread(x: Any, below: Any) -> Any:
        return jax.tree.map(lambda y: y if x == label else optax.MaskedNode(), below)

    return jax.tree.map(spread, labels, tree)
