# SPDX-License-Identifier: Apache-2.0
"""Names of leaves like `params/dense/kernel`, patterns over them, and errors that use them."""

import fnmatch
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.tree_util import KeyPath, keystr


def name(path: KeyPath) -> str:
    """A leaf's path as words joined by slashes; a tree that is one bare leaf is called `leaf`."""
    return keystr(path, simple=True, separator="/") or "leaf"


def names(tree: Any) -> list[str]:
    """The name of every leaf, in the order of `jax.tree.leaves`."""
    return [name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


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
    """A function from a tree to a tree of booleans: which leaves' paths match `pattern`.

    A pattern that matches no leaf is an error, except in a tree that another mask already hides
    in part.
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
    """One sentence about the first leaf at which the structures of two trees differ."""
    here, there = names(expected), names(got)
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
