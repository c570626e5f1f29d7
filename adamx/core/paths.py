# SPDX-License-Identifier: Apache-2.0
"""Leaves by name: `params/dense/kernel`, patterns over such names, and errors that use them."""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath, keystr


def name(path: KeyPath) -> str:
    """A leaf's path as words joined by slashes; a tree that is one bare leaf is called `leaf`."""
    return keystr(path, simple=True, separator="/") or "leaf"


def names(tree: Any) -> list[str]:
    """The name of every leaf, in the order of `jax.tree.leaves`."""
    return [name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def owner(path: KeyPath, leaf: Any, params: Mapping[KeyPath, Any]) -> KeyPath | None:
    """The path of the parameter that a leaf of a state belongs to: the longest that it ends in,
    of those of its shape if there are any.

    Where the parameters are one bare array every path ends in its empty one, and shapes decide.
    """
    tails = [path[start:] for start in range(len(path) + 1)]
    found = [tail for tail in tails if tail in params]
    alike = [tail for tail in found if leaf.shape == jnp.shape(params[tail])]
    return next(iter([*alike, *filter(None, found)]), None)


def matches(pattern: str, path: str) -> bool:
    """Whether `path` matches one of the `|`-separated globs; a leading `!` asks for none of them.

    `*` stands for any run of characters, slashes included; the first `*/` also matches nothing,
    so that `*/bias` finds a top-level `bias`.

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
    """A function from a tree to a tree of booleans: which leaves' paths match `pattern`.

    A pattern that selects nothing is taken for a slip of the pen, except in a tree of which
    another mask already hides a part.
    """

    def select(tree: Any) -> Any:
        chosen = jax.tree_util.tree_map_with_path(lambda p, _: matches(pattern, name(p)), tree)
        if not any(jax.tree.leaves(chosen)) and jax.tree.leaves(tree) and not _hidden(tree):
            raise ValueError(f"`mask` {pattern!r} matches none of {_listing(tree)}")
        return chosen

    return select


def _hidden(tree: Any) -> bool:
    def is_hidden(x: Any) -> bool:
        return isinstance(x, optax.MaskedNode)

    return any(map(is_hidden, jax.tree.leaves(tree, is_leaf=is_hidden)))


def _listing(tree: Any, most: int = 8) -> str:
    found = names(tree)
    return ", ".join(found[:most]) + (f" … ({len(found)} in all)" if len(found) > most else "")


def difference(expected: Any, got: Any, expected_name: str, got_name: str) -> str:
    """One sentence on the first leaf at which the structures of two trees part."""
    here, there = names(expected), names(got)
    for path in here:
        if path not in there:
            return f"{path}: {expected_name} has this leaf, {got_name} not"
    for path in there:
        if path not in here:
            return f"{path}: {got_name} has this leaf, {expected_name} not"
    return (
        f"{expected_name} and {got_name} have the same leaves in different containers: "
        f"{jax.tree.structure(expected)} and {jax.tree.structure(got)}"
    )
