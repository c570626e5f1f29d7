# SPDX-License-Identifier: Apache-2.0
"""The leaves of a gradient beside those of the parameters and of a state, checked and by name.

For transformations that keep a state class of their own. Those that are one rule on one array have
`moments/scale_by.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamx.core import dtypes, paths


class Rows(NamedTuple):
    """The leaves of several trees of one structure.

    Attributes:
      names: of the leaves.
      gradients: of the leaves.
      columns: of each other tree, by its name, what it has at each leaf.
      treedef: the structure of the gradients.
    """

    names: list[str]
    gradients: list[Any]
    columns: dict[str, list[Any]]
    treedef: Any


def rows(who: str, gradients: Any, **trees: Any) -> Rows:
    """The leaves of `gradients`, and beside each what the other trees have there.

    Raises in the name of `who` where a tree (`params`, or a field of the state) has another
    structure, where an array of it has another shape, or where a gradient is not floating point.
    """
    leaves, treedef = paths.flatten(gradients)
    names, arrays = [paths.name(path) for path, _ in leaves], [g for _, g in leaves]
    columns = {}
    for what, tree in trees.items():
        where = "the tree of parameters" if what == "params" else f"the state's `{what}`"
        try:
            columns[what] = treedef.flatten_up_to(tree)
        except (ValueError, TypeError) as e:
            said = paths.difference(tree, gradients, where, "the gradient")
            raise ValueError(f"{who}: {said}") from e
        for name, g, x in zip(names, arrays, columns[what], strict=True):
            if hasattr(x, "shape") and jnp.shape(x) != jnp.shape(g):
                raise ValueError(
                    f"{name}: gradient has shape {jnp.shape(g)}, {where} has {jnp.shape(x)} ({who})"
                )
    for name, g in zip(names, arrays, strict=True):
        check_floating(who, name, "gradient", g)
    return Rows(names, arrays, columns, treedef)


def check_floating(who: str, name: str, what: str, leaf: Any) -> None:
    """Raises where a leaf is not an array of floating point numbers, real or complex."""
    try:
        dtype: Any = dtypes.of(leaf)
    except TypeError:
        dtype = type(leaf).__name__
    if isinstance(dtype, str) or not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"{name}: {what} is {dtype}, {who} needs floating point (leave such leaves out "
            "with `optax.masked`, `optax.partition` or `equinox.filter(model, "
            "equinox.is_inexact_array)`)"
        )


_ELSE = "it was made by another recipe, or restored without a target"


def check_state(who: str, state: Any, wanted: type, why: str = _ELSE) -> None:
    """Raises where a state is of another class than `wanted`, with what may be the reason."""
    if not isinstance(state, wanted):
        raise ValueError(
            f"{who}: the state is a {type(state).__name__}, expected {wanted.__name__}: {why}"
        )


def widest(tree: Any) -> jnp.dtype:
    """The real dtype that scalars for all leaves of `tree` are kept in, at least float32."""
    return dtypes.real(dtypes.working(*map(dtypes.of, jax.tree.leaves(tree))))
