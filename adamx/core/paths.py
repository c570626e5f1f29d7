# SPDX-License-Identifier: Apache-2.0
"""Names of leaves like `params/dense/kernel`, patterns over them, and errors that use them.

A leaf has one name, whatever boxes it: the path to a Flax `Variable` or to a boxed parameter
(`nn.with_partitioning`) names the array inside, with and without the box.
"""

import difflib
import fnmatch
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import optax
from jax.tree_util import KeyPath, keystr

from adamx.core.instances import instances, is_none


def name(path: KeyPath) -> str:
    """A leaf's path as words joined by slashes; a tree that is one bare leaf is called `leaf`."""
    return keystr(path, simple=True, separator="/") or "leaf"


def names(tree: Any) -> list[str]:
    """The name of every leaf, in the order of `jax.tree.leaves`."""
    return [name(path) for path, _ in flatten(tree)[0]]


def flatten(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[tuple[KeyPath, Any]], Any]:
    """As `jax.tree_util.tree_flatten_with_path`, but boxes leave no trace in the paths."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    boxes = _boxes()
    if not boxes:
        return leaves, treedef
    paths = _unboxed(tree, boxes, is_leaf)
    return [(path, leaf) for path, (_, leaf) in zip(paths, leaves, strict=True)], treedef


def _boxes() -> tuple[type, ...]:
    """Flax's classes that hold one array as `.value`, if the program has imported them."""
    known = (("flax.nnx.variablelib", "Variable"), ("flax.core.meta", "AxisMetadata"))
    return tuple(getattr(sys.modules[m], name) for m, name in known if m in sys.modules)


def _unboxed(
    tree: Any, boxes: tuple[type, ...], is_leaf: Callable[[Any], bool] | None
) -> Iterator[KeyPath]:
    def stops(x: Any) -> bool:
        return (x is not tree and isinstance(x, boxes)) or (is_leaf is not None and is_leaf(x))

    for path, x in jax.tree_util.tree_flatten_with_path(tree, is_leaf=stops)[0]:
        if isinstance(tree, boxes) and path and getattr(path[0], "name", "") == "value":
            path = path[1:]
        inside = x is not tree and isinstance(x, boxes)
        yield from (path + rest for rest in _unboxed(x, boxes, is_leaf)) if inside else (path,)


def mapped(function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Any = None) -> Any:
    """As `jax.tree.map`, of a function that is given a leaf's name first."""
    leaves, treedef = flatten(tree, is_leaf)
    rows = zip(leaves, *map(treedef.flatten_up_to, rest), strict=True)
    return treedef.unflatten([function(name(path), x, *more) for (path, x), *more in rows])


def matches(pattern: str, path: str) -> bool:
    """Whether `path` matches one of the `|`-separated globs; a leading `!` negates the result.

    `*` stands for any run of characters, slashes included; a leading `*/` also matches the empty
    prefix, so that `*/bias` finds a top-level `bias`.

    Example:
      >>> matches("*/bias|*/scale", "decoder/0/bias"), matches("*/bias", "bias")
      (True, True)
      >>> matches("!*/bias|*/scale", "decoder/0/bias")
      False
    """
    if pattern.startswith("!"):
        return not matches(pattern[1:], path)
    return any(fnmatch.fnmatchcase("/" + path, _rooted(glob)) for glob in pattern.split("|"))


def _rooted(glob: str) -> str:
    glob = glob.strip()
    return glob if glob.startswith("*") else "/" + glob


def mask(pattern: str) -> Callable[[Any], Any]:
    """A function from a tree to a tree of booleans: which leaves' paths match `pattern`."""

    def select(tree: Any) -> Any:
        check_used("`mask`", [pattern], tree)
        return mapped(lambda path, _: matches(pattern, path), tree)

    return select


def check_used(argument: str, patterns: Sequence[str], tree: Any) -> None:
    """Raises where a pattern matches no leaf, negated ones without their `!`; `*` may.

    A tree of which another mask hides a part is not checked: the leaf may be there. None, as
    Equinox has it for what is not trained, counts as a leaf, and as all that a pattern that begins
    with its name means.

    Example:
      >>> check_used("`mask`", ["!*/biass"], {"dense": {"kernel": 1.0, "bias": 1.0}})
      Traceback (most recent call last):
      ...
      ValueError: `mask`: no leaf matches '!*/biass'; the nearest are dense/bias, dense/kernel
    """
    found, holes = names(tree), _holes(tree)
    unused = [
        p
        for p in patterns
        if p != "*"
        and not any(matches(p.removeprefix("!"), n) for n in found + holes)
        and not any(glob.strip(" !").startswith(f"{n}/") for glob in p.split("|") for n in holes)
    ]
    if not unused or not found or instances(tree, optax.MaskedNode):
        return
    raise ValueError(
        f"{argument}: no leaf matches {unused[0]!r}; the nearest are {nearest(unused[0], found)}"
    )


def nearest(pattern: str, names: list[str], most: int = 5) -> str:
    """The names most like a pattern, as a whole or in their last words."""

    def likeness(name: str) -> float:
        globs = [glob.strip(" !*/") for glob in pattern.split("|")]
        ends = [name, name.rpartition("/")[2]]
        pairs = [(glob, end) for glob in globs for end in ends]
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return few(sorted(names, key=likeness, reverse=True), most)


def few(names: list[str], most: int = 5) -> str:
    """The first of some names, and how many there are where that is not all."""
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def is_hidden(tree: Any) -> bool:
    """Whether a part of a tree is missing: behind a mask of Optax's, or None as in Equinox."""
    return bool(_holes(tree) or instances(tree, optax.MaskedNode))


def _holes(tree: Any) -> list[str]:
    """The names of the places that have None."""
    return [name(path) for path, x in flatten(tree, is_leaf=is_none)[0] if x is None]


def beside(updates: Any, params: Any, who: str) -> Any:
    """`params` as a tree like `updates`, with None where there is no gradient, as in Equinox.

    Raises where they differ, in the name of `who`.
    """
    leaves, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    try:
        held = treedef.flatten_up_to(params)
        matches = not is_one_for_many(updates, params)
    except (ValueError, TypeError):
        held, matches = [], False
    if not matches:
        what = difference(params, updates, "the tree of parameters", "the gradient")
        raise ValueError(f"{who}: {what}")
    return treedef.unflatten([None if u is None else p for u, p in zip(leaves, held, strict=True)])


def needed(updates: Any, params: Any, who: str) -> Any:
    """As `beside`; raises also where the parameters are missing."""
    if params is not None:
        return beside(updates, params, who)
    if jax.tree.leaves(updates):
        raise ValueError(f"{who} needs the parameters: call `update(g, state, params)`")
    return None


def is_one_for_many(updates: Any, tree: Any) -> bool:
    """Whether `updates` is one array and `tree` is not, as where the loss is given as gradient."""
    one = jax.tree.structure(updates)
    return one.num_leaves == one.num_nodes == 1 and jax.tree.structure(tree).num_nodes > 1


def difference(expected: Any, got: Any, expected_name: str, got_name: str) -> str:
    """One sentence about the first leaf at which the structures of two trees differ."""
    here, there = names(expected), names(got)
    if is_one_for_many(got, expected):
        return (
            f"{got_name} is one array of shape {jax.numpy.shape(got)}, {expected_name} has leaves "
            f"like {here[0]}: pass the gradients, not the loss"
        )
    for path in here:
        if path not in there:
            return f"{path}: {expected_name} has this leaf, {got_name} does not"
    for path in there:
        if path not in here:
            return f"{path}: {got_name} has this leaf, {expected_name} does not"
    return (
        f"{expected_name} and {got_name} have the same leaves in different containers: "
        f"{jax.tree.structure(expected)} and {jax.tree.structure(got)}"
    )
